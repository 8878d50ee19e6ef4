"""How values are written as rows and read back; JSON where no query looks inside."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from watcher.core.delivery import Delivery
from watcher.core.events import ENDS, Edge, Event
from watcher.core.ledger import UNSETTLED, LedgerRow
from watcher.core.model import Json, Severity, Subject
from watcher.core.retry import SinkState
from watcher.ports import Saved

T = TypeVar("T")
Row = Mapping[Any, Any]

event = msgspec.json.Decoder(Event).decode
saved = msgspec.json.Decoder(Saved).decode
receipt = msgspec.json.Decoder(Json).decode
sink_state = msgspec.json.Decoder(SinkState).decode
_encoder = msgspec.json.Encoder()


def json(value: object) -> str:
    """As it is kept in a text column."""
    return _encoder.encode(value).decode()


def readable(decode: Callable[[Any], T], value: object) -> T | None:
    """Decode what was stored, or None: one damaged row must not stop all others."""
    try:
        return decode(value)
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None


def text(value: str) -> str:
    """As every database can keep it, whatever a receiver has answered."""
    return value.encode(errors="replace").decode().replace("\0", "")


def saved_row(value: Saved) -> Row:
    """Write one subject."""
    return {"cluster": value.subject.cluster, "uid": value.subject.uid, "body": json(value)}


def incident_row(told: Event) -> Row:
    """Write an incident as it stands after an event of it."""
    return asdict(told.subject) | {
        "id": told.incident,
        "sequence": told.sequence,
        "opened_at": told.opened_at,
        "ended_at": told.at if told.edge in ENDS else None,
    }


def event_row(told: Event, recorded_at: datetime) -> Row:
    """Write an event."""
    about = {name: getattr(told, name) for name in ("id", "incident", "sequence")}
    return about | {"recorded_at": recorded_at, "body": json(told)}


def delivery_row(value: Delivery, recorded_at: datetime) -> Row:
    """Write a delivery that was never tried."""
    return asdict(value) | {
        "id": value.id,
        "digest": value.digest or None,
        "attempts": 0,
        "recorded_at": recorded_at,
        "first_attempt_at": None,
        "settled_at": None if value.state in UNSETTLED else recorded_at,
        "ambiguous": False,
        "detail": "",
    }


def delivery(row: Row) -> Delivery:
    """Read a delivery; a null is its field's default."""
    fields = {name: row[name] for name in Delivery.__struct_fields__ if row[name] is not None}
    return msgspec.convert(fields, Delivery)


def ledger_row(row: Row, told: Event | None = None) -> LedgerRow:
    """Read a delivery with its event, unless that is given, and all that became of it."""
    at = row["recorded_at"]
    lost = Event(
        row["incident"], row["sequence"], Edge.UPDATED, Subject(""), at, at, at,
        "unreadable", Severity.WARNING, "",
    )  # fmt: skip
    return LedgerRow(
        delivery(row), told or readable(event, row["body"]) or lost, row["attempts"], at,
        row["settled_at"], row["detail"], row["superseded_by"] or "", row["redriven_at"],
        row["redriven_by"] or "", row["first_attempt_at"],
    )  # fmt: skip
