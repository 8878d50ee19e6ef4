"""Taking deliveries to be sent: the queue's order in SQL, each incident's in `core.outbox`."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, case, exists, func, insert, select, update

from watcher.core.model import Delivery, DeliveryState, Event, Json, Part
from watcher.core.outbox import Choice, Wait, choose
from watcher.core.outbox import Row as OutboxRow
from watcher.ports import Claim
from watcher.stores import rows
from watcher.stores.schema import Instant, deliveries, events, incidents

_ROUNDS: Final = 10
_BATCH: Final = 50

_d = deliveries.c
_rival = deliveries.alias("rival").c
_now = bindparam("now", type_=Instant())
_OPEN = and_(_d.sink == bindparam("of_sink"), _d.settled_at.is_(None))
_EVENT = events.c.id == _d.event

# Grouped, so that the index's order is the queue's and a deep queue is not read to its end. One
# whose lease has run out is not in flight any more.
_IN_FLIGHT = func.max(case(((_d.state == DeliveryState.INFLIGHT) & (_d.due_at > _now), 1), else_=0))
_HEADS = (
    select(_d.incident)
    .where(_OPEN, _d.incident.not_in(bindparam("busy", expanding=True)))
    .group_by(_d.incident)
    .having(func.min(_d.due_at) <= _now, _IN_FLIGHT == 0)
    .order_by(_d.incident.desc())  # the ids begin with the time
    .limit(bindparam("batch"))
)
_ROWS = (
    select(deliveries, events.c.body)
    .join(events, _EVENT)
    .where(_OPEN, _d.incident.in_(bindparam("heads", expanding=True)))
    .order_by(_d.incident.desc(), _d.sequence)
)
_DEFER = (
    update(deliveries)
    .where(_OPEN, _d.incident == bindparam("of_incident"), _d.due_at <= _now)
    .values(due_at=bindparam("until"))
)
_SUPERSEDE = (
    update(deliveries)
    .where(_d.id.in_(bindparam("ids", expanding=True)))
    .values(state=DeliveryState.SUPERSEDED, settled_at=_now, superseded_by=bindparam("by"))
)
# What a superseded row had superseded is told by its successor too.
_INHERIT = (
    update(deliveries)
    .where(_d.superseded_by.in_(bindparam("ids", expanding=True)))
    .values(superseded_by=bindparam("by"))
)
_TAKE = (
    update(deliveries)
    .where(_d.id == bindparam("taken"))
    .values(
        state=DeliveryState.INFLIGHT,
        due_at=bindparam("lease_until"),
        first_attempt_at=func.coalesce(_d.first_attempt_at, _now),
        last_attempt_at=_now,
        ambiguous=bindparam("may_have_arrived"),
    )
)
_COVERED = (
    select(events.c.body, _d.recorded_at)
    .join(events, _EVENT)
    .where(_d.superseded_by == bindparam("by"))
)
_THREAD = (
    select(_d.receipt)
    .where(_d.incident == bindparam("incident"), _d.sink == bindparam("sink"))
    .where(_d.receipt.is_not(None))
    .order_by(_d.settled_at.desc(), _d.sequence.desc())
    .limit(1)
)
_NEWEST = select(events.c.body).join(
    incidents, (incidents.c.id == events.c.incident) & (incidents.c.sequence == events.c.sequence)
)
_LATEST = _NEWEST.where(incidents.c.id == bindparam("incident"))
_GROUPED = (_d.digest == bindparam("digest")) & (_d.state == DeliveryState.GROUPED)
_MEMBERS = _NEWEST.where(incidents.c.id.in_(select(_d.incident).where(_GROUPED))).order_by(
    incidents.c.id
)

_TAKEN = exists().where(
    _rival.sink == _d.sink,
    _rival.incident == _d.incident,
    _rival.settled_at.is_(None),
    _rival.state == DeliveryState.INFLIGHT,
    _rival.id != _d.id,
)
NEXT_DUE = select(_d.due_at).where(_OPEN, ~_TAKEN).order_by(_d.due_at).limit(1)


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
    way of others nor keeps `NEXT_DUE` in the past.
    """
    claims: list[Claim] = []
    asked = {"of_sink": request.sink, "now": request.now}
    batch = request.limit
    for _ in range(_ROUNDS):
        heads = db.scalars(_HEADS, {**asked, "busy": request.busy, "batch": batch}).all()
        for waiting in _waiting(db, request.sink, heads):
            choice = choose([row.choosable for row in waiting], request.now, request.edits_from)
            match choice:
                case Wait(until):
                    incident = waiting[0].event.incident
                    db.execute(_DEFER, {**asked, "of_incident": incident, "until": until})
                case Choice() if len(claims) < request.limit:
                    claims.append(_claim(db, request, waiting, choice))
        if len(heads) < batch or len(claims) == request.limit:
            break
        batch = _BATCH
    return claims


def _waiting(db: Connection, sink: str, heads: Sequence[str]) -> Iterator[list[_Open]]:
    """All open rows of each incident, newest incident first."""
    if not heads:
        return
    found = db.execute(_ROWS, {"of_sink": sink, "heads": heads}).mappings().all()
    for _, incident in groupby(found, key=lambda row: row["incident"]):
        yield [_open(row) for row in incident]


def _open(row: rows.Row) -> _Open:
    ambiguous = row["ambiguous"] or row["state"] == DeliveryState.INFLIGHT
    return _Open(row, rows.event(row["body"]), rows.delivery(row), ambiguous)


def _claim(db: Connection, request: Request, waiting: Sequence[_Open], choice: Choice) -> Claim:
    sent = choice.send
    chosen = next((row for row in waiting if row.delivery == sent), None)
    if chosen is None:
        chosen = _replace(db, waiting, sent)
    if choice.supersede:
        ids = [delivery.id for delivery in choice.supersede]
        db.execute(_INHERIT, {"ids": ids, "by": sent.id})
        db.execute(_SUPERSEDE, {"ids": ids, "by": sent.id, "now": request.now})
    taken = {"taken": sent.id, "now": request.now, "lease_until": request.now + request.lease}
    db.execute(_TAKE, {**taken, "may_have_arrived": chosen.ambiguous})
    told, waiting_since = [chosen.event], chosen.row["recorded_at"]
    if choice.supersede or chosen.row["first_attempt_at"]:
        for body, recorded_at in db.execute(_COVERED, {"by": sent.id}):
            told.append(rows.event(body))
            waiting_since = min(waiting_since, recorded_at)
    return Claim(
        delivery=sent,
        attempts=chosen.row["attempts"],
        recorded_at=chosen.row["recorded_at"],
        first_attempt_at=chosen.row["first_attempt_at"],
        ambiguous=chosen.ambiguous,
        last_error=chosen.row["reason"],
        event=chosen.event,
        latest=rows.event(db.execute(_LATEST, {"incident": sent.incident}).scalar_one()),
        thread=_thread(db, sent),
        # Each once: a post may replace both the edit and the reply of an event.
        covers=tuple(event for _, event in sorted({one.sequence: one for one in told}.items())),
        members=_members(db, chosen.event),
        waiting_since=waiting_since,
        superseded=choice.supersede,
    )


def _replace(db: Connection, waiting: Sequence[_Open], delivery: Delivery) -> _Open:
    """Write the delivery that takes the place of others, as if recorded with its event."""
    sibling = next(row for row in waiting if row.delivery.event == delivery.event)
    row = rows.delivery_row(delivery, sibling.row["recorded_at"])
    db.execute(insert(deliveries), row)
    return _Open(row, sibling.event, delivery, ambiguous=False)


def _thread(db: Connection, sent: Delivery) -> Json | None:
    if sent.part not in (Part.EDIT, Part.REPLY):
        return None
    receipt = db.scalar(_THREAD, {"incident": sent.incident, "sink": sent.sink})
    return rows.receipt(receipt) if receipt else None


def _members(db: Connection, event: Event) -> tuple[Event, ...]:
    if not event.digest:
        return ()
    return tuple(map(rows.event, db.scalars(_MEMBERS, {"digest": event.incident})))
