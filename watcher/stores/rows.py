"""How values are written as rows and read back; JSON where no query looks inside."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from watcher.core.model import (
    ENDS,
    Baseline,
    Delivery,
    DeliveryState,
    Event,
    Json,
    Part,
    Phase,
    Subject,
)
from watcher.core.retry import SinkState
from watcher.ports import LedgerRow, Saved

Row = Mapping[Any, Any]

OPEN: Final = frozenset({DeliveryState.PENDING, DeliveryState.INFLIGHT, DeliveryState.PARKED})
"""The states that are not final."""

event = msgspec.json.Decoder(Event).decode
receipt = msgspec.json.Decoder(Json).decode
sink_state = msgspec.json.Decoder(SinkState).decode
_phase: msgspec.json.Decoder[Phase] = msgspec.json.Decoder(Phase)
_baseline = msgspec.json.Decoder(Baseline)
_encoder = msgspec.json.Encoder()


def json(value: object) -> str:
    """As it is kept in a text column."""
    return _encoder.encode(value).decode()


def saved(row: Row) -> Saved:
    """Read one subject."""
    return Saved(
        Subject(row["cluster"], row["namespace"], row["name"], row["uid"]),
        _phase.decode(row["phase"]),
        _baseline.decode(row["baseline"]) if row["baseline"] else None,
    )


def saved_row(value: Saved, at: datetime) -> Row:
    """Write one subject."""
    baseline = json(value.baseline) if value.baseline else None
    kept = {"phase": json(value.phase), "baseline": baseline, "updated_at": at}
    return asdict(value.subject) | kept


def incident_row(told: Event) -> Row:
    """Write an incident as it stands after an event of it."""
    return asdict(told.subject) | {
        "id": told.incident,
        "kind": "digest" if told.digest else "cluster" if told.subject.is_cluster else "deployment",
        "opened_at": told.opened_at,
        "since": told.since,
        "reason": told.reason,
        "severity": told.severity,
        "message": told.message,
        "sequence": told.sequence,
        "ended_at": told.at if told.edge in ENDS else None,
        "resolution": told.resolution,
    }


def event_row(told: Event, recorded_at: datetime) -> Row:
    """Write an event."""
    return {
        "id": told.id,
        "incident": told.incident,
        "sequence": told.sequence,
        "type": told.type,
        "at": told.at,
        "recorded_at": recorded_at,
        "body": json(told),
    }


def delivery_row(value: Delivery, recorded_at: datetime) -> Row:
    """Write a delivery that was never tried."""
    row = asdict(value)
    return row | {
        "id": value.id,
        "due_at": row.pop("due"),
        "digest": value.digest or None,
        "attempts": 0,
        "recorded_at": recorded_at,
        "first_attempt_at": None,
        "settled_at": None if value.state in OPEN else recorded_at,
        "ambiguous": False,
        "detail": "",
    }


def delivery(row: Row) -> Delivery:
    """Read a delivery."""
    return Delivery(
        sink=row["sink"],
        event=row["event"],
        incident=row["incident"],
        sequence=row["sequence"],
        part=Part(row["part"]),
        due=row["due_at"],
        state=DeliveryState(row["state"]),
        reason=row["reason"],
        digest=row["digest"] or "",
    )


def ledger_row(row: Row) -> LedgerRow:
    """Read a delivery with all that became of it."""
    return LedgerRow(
        delivery(row),
        event(row["body"]),
        row["attempts"],
        row["recorded_at"],
        row["settled_at"],
        error=row["detail"],
    )
