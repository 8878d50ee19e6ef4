"""Taking deliveries to be sent: the queue's order in SQL, each incident's in `core.outbox`."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, bindparam, case, exists, func, insert, select, update

from watcher.core.model import Delivery, DeliveryState, Event, Json, Part
from watcher.core.outbox import Choice, Wait, choose
from watcher.core.outbox import Row as OutboxRow
from watcher.ports import Claim
from watcher.stores import rows
from watcher.stores.schema import deliveries, events, incidents

_ROUNDS: Final = 10
_BATCH: Final = 50

_d = deliveries.c
_OPEN = _d.settled_at.is_(None)
_IN_FLIGHT = _d.state == DeliveryState.INFLIGHT
# Grouped, so that the index's order is the queue's and a deep queue is not read to its end.
_HEADS = (
    select(_d.incident)
    .where(
        _d.sink == bindparam("sink"),
        _OPEN,
        _d.incident.not_in(bindparam("busy", expanding=True)),
    )
    .group_by(_d.incident)
    .having(
        func.min(_d.due_at) <= bindparam("now"),
        # One whose lease has run out is not in flight any more.
        func.max(case((_IN_FLIGHT & (_d.due_at > bindparam("now")), 1), else_=0)) == 0,
    )
    .order_by(_d.incident.desc())  # the ids begin with the time
    .limit(bindparam("limit"))
)
_rival = deliveries.alias("rival")
NEXT_DUE = (
    select(_d.due_at)
    .where(
        _d.sink == bindparam("sink"),
        _OPEN,
        ~exists().where(
            _rival.c.sink == _d.sink,
            _rival.c.incident == _d.incident,
            _rival.c.settled_at.is_(None),
            _rival.c.state == DeliveryState.INFLIGHT,
            _rival.c.id != _d.id,
        ),
    )
    .order_by(_d.due_at)
    .limit(1)
)
_ROWS = (
    select(deliveries, events.c.body)
    .join(events, events.c.id == _d.event)
    .where(
        _d.sink == bindparam("sink"),
        _OPEN,
        _d.incident.in_(bindparam("incidents", expanding=True)),
    )
    .order_by(_d.incident.desc(), _d.sequence)
)
_DEFER = (
    update(deliveries)
    .where(
        _d.sink == bindparam("of_sink"),
        _d.incident == bindparam("of_incident"),
        _OPEN,
        _d.due_at <= bindparam("now"),
    )
    .values(due_at=bindparam("until"))
)
_TAKE = (
    update(deliveries)
    .where(_d.id == bindparam("taken"))
    .values(
        state=DeliveryState.INFLIGHT,
        due_at=bindparam("lease_until"),
        first_attempt_at=func.coalesce(_d.first_attempt_at, bindparam("now", type_=_d.due_at.type)),
        last_attempt_at=bindparam("now"),
        ambiguous=bindparam("may_have_arrived"),
    )
)
_SUPERSEDE = (
    update(deliveries)
    .where(_d.id.in_(bindparam("ids", expanding=True)))
    .values(
        state=DeliveryState.SUPERSEDED, settled_at=bindparam("now"), superseded_by=bindparam("by")
    )
)
# What a superseded row had superseded is told by its successor too.
_INHERIT = (
    update(deliveries)
    .where(_d.superseded_by.in_(bindparam("ids", expanding=True)))
    .values(superseded_by=bindparam("by"))
)
_COVERED = (
    select(events.c.body, _d.recorded_at)
    .join(events, events.c.id == _d.event)
    .where(_d.superseded_by == bindparam("by"))
)
_LATEST = (
    select(events.c.body)
    .join(incidents, incidents.c.id == events.c.incident)
    .where(incidents.c.id == bindparam("incident"), events.c.sequence == incidents.c.sequence)
)
_THREAD = (
    select(_d.receipt)
    .where(
        _d.incident == bindparam("incident"),
        _d.sink == bindparam("sink"),
        _d.receipt.is_not(None),
    )
    .order_by(_d.settled_at.desc(), _d.sequence.desc())
    .limit(1)
)
_MEMBERS = (
    select(events.c.body)
    .join(incidents, incidents.c.id == events.c.incident)
    .where(
        events.c.sequence == incidents.c.sequence,
        incidents.c.id.in_(
            select(_d.incident).where(
                _d.digest == bindparam("digest"),
                _d.state == DeliveryState.GROUPED,
            )
        ),
    )
    .order_by(incidents.c.id)
)


class Request(Struct, frozen=True):
    """Whose deliveries are wanted, and how many."""

    sink: str
    now: datetime
    limit: int
    lease: timedelta
    busy: tuple[str, ...] = ()
    edits_from: datetime | None = None


class _Open(Struct, frozen=True):
    """One open row with its event."""

    row: rows.Row
    event: Event
    delivery: Delivery
    ambiguous: bool

    @property
    def choosable(self) -> OutboxRow:
        tried = self.row["first_attempt_at"] is not None
        return OutboxRow(self.delivery, self.event.edge, self.event.digest, tried, self.ambiguous)


def take(db: Connection, request: Request) -> list[Claim]:
    """Claim up to `limit` deliveries, at most one of an incident.

    An incident that is due but must wait is put off as a whole, so that it neither stands in the
    way of others nor keeps `next_due` in the past.
    """
    claims: list[Claim] = []
    batch = request.limit
    for _ in range(_ROUNDS):
        heads = _heads(db, request, batch)
        for waiting in _waiting(db, request.sink, heads):
            choice = choose([row.choosable for row in waiting], request.now, request.edits_from)
            match choice:
                case Wait(until):
                    _defer(db, request, waiting[0].event.incident, until)
                case Choice() if len(claims) < request.limit:
                    claims.append(_claim(db, request, waiting, choice))
        if len(heads) < batch or len(claims) == request.limit:
            break
        batch = _BATCH
    return claims


def _heads(db: Connection, request: Request, batch: int) -> Sequence[str]:
    found = db.scalars(
        _HEADS,
        {"sink": request.sink, "now": request.now, "busy": request.busy, "limit": batch},
    )
    return found.all()


def _waiting(db: Connection, sink: str, heads: Sequence[str]) -> Iterator[list[_Open]]:
    """All open rows of each incident, newest incident first."""
    if not heads:
        return
    found = db.execute(_ROWS, {"sink": sink, "incidents": heads}).mappings().all()
    for _, incident in groupby(found, key=lambda row: row["incident"]):
        yield [_open(row) for row in incident]


def _open(row: rows.Row) -> _Open:
    ambiguous = row["ambiguous"] or row["state"] == DeliveryState.INFLIGHT
    return _Open(row, rows.event(row["body"]), rows.delivery(row), ambiguous)


def _defer(db: Connection, request: Request, incident: str, until: datetime) -> None:
    db.execute(
        _DEFER,
        {"of_sink": request.sink, "of_incident": incident, "now": request.now, "until": until},
    )


def _claim(db: Connection, request: Request, waiting: Sequence[_Open], choice: Choice) -> Claim:
    chosen = next((row for row in waiting if row.delivery == choice.send), None)
    if chosen is None:
        chosen = _replace(db, waiting, choice.send)
    if choice.supersede:
        ids = [delivery.id for delivery in choice.supersede]
        superseded = {"ids": ids, "by": choice.send.id, "now": request.now}
        db.execute(_INHERIT, superseded)
        db.execute(_SUPERSEDE, superseded)
    _mark_in_flight(db, request, chosen)
    covered = [(chosen.event, chosen.row["recorded_at"])]
    if choice.supersede or chosen.row["first_attempt_at"]:
        covered += _covered(db, choice.send)
    return Claim(
        delivery=choice.send,
        attempts=chosen.row["attempts"],
        recorded_at=chosen.row["recorded_at"],
        first_attempt_at=chosen.row["first_attempt_at"],
        ambiguous=chosen.ambiguous,
        last_error=chosen.row["reason"],
        event=chosen.event,
        latest=_latest(db, chosen.event),
        thread=_thread(db, choice.send),
        covers=_in_order(event for event, _ in covered),
        members=_members(db, chosen.event),
        waiting_since=min(recorded_at for _, recorded_at in covered),
        superseded=choice.supersede,
    )


def _replace(db: Connection, waiting: Sequence[_Open], delivery: Delivery) -> _Open:
    """Write the delivery that takes the place of others, as if recorded with its event."""
    sibling = next(row for row in waiting if row.delivery.event == delivery.event)
    row = rows.delivery_row(delivery, sibling.row["recorded_at"])
    db.execute(insert(deliveries), row)
    return _Open(row, sibling.event, delivery, ambiguous=False)


def _mark_in_flight(db: Connection, request: Request, chosen: _Open) -> None:
    db.execute(
        _TAKE,
        {
            "taken": chosen.row["id"],
            "lease_until": request.now + request.lease,
            "may_have_arrived": chosen.ambiguous,
            "now": request.now,
        },
    )


def _covered(db: Connection, delivery: Delivery) -> list[tuple[Event, datetime]]:
    found = db.execute(_COVERED, {"by": delivery.id})
    return [(rows.event(row.body), row.recorded_at) for row in found]


def _in_order(covered: Iterable[Event]) -> tuple[Event, ...]:
    """Each event once: a post may replace both its edit and its reply."""
    by_sequence = {event.sequence: event for event in covered}
    return tuple(by_sequence[sequence] for sequence in sorted(by_sequence))


def _latest(db: Connection, event: Event) -> Event:
    return rows.event(db.execute(_LATEST, {"incident": event.incident}).scalar_one())


def _thread(db: Connection, delivery: Delivery) -> Json | None:
    if delivery.part not in (Part.EDIT, Part.REPLY):
        return None
    receipt = db.scalar(_THREAD, {"incident": delivery.incident, "sink": delivery.sink})
    return rows.receipt(receipt) if receipt else None


def _members(db: Connection, event: Event) -> tuple[Event, ...]:
    if not event.digest:
        return ()
    bodies = db.scalars(_MEMBERS, {"digest": event.incident})
    return tuple(rows.event(body) for body in bodies)
