"""Taking deliveries to be sent: the queue's order in SQL, each incident's in `core.outbox`."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Event
from watcher.core.model import Json
from watcher.core.outbox import Choice, choose, superfluous
from watcher.core.outbox import Row as Unsent
from watcher.ports import Claim, Record
from watcher.stores import rows
from watcher.stores.schema import Instant, deliveries, events, incidents, told

_DEEP: Final = 500
_FEW: Final = 100
_d = deliveries.c
_rival = deliveries.alias().c
_now = bindparam("now", type_=Instant())
_OPEN = (_d.sink == bindparam("of_sink")) & _d.settled_at.is_(None)

# Statements that every claim needs are built once, which takes longer than SQLite does.
# Grouped, so that the index's order is the queue's and a deep queue is not read to its end.
_IN_FLIGHT = func.max(case((_d.state == DeliveryState.INFLIGHT, 1), else_=0))
_HEADS = (
    select(_d.incident)
    .where(_OPEN)
    .group_by(_d.incident)
    .having(func.min(_d.due) <= _now, _IN_FLIGHT == 0)
    .order_by(_d.incident.desc())  # the ids begin with the time
    .limit(bindparam("batch"))
)
_CROWDED = (
    select(_d.incident)
    .where(_OPEN, _d.incident > bindparam("after"))
    .group_by(_d.incident)
    .having(
        func.count() > 1,
        func.sum(case((_d.part == bindparam("of_part"), 1), else_=0)) >= bindparam("least"),
        func.min(_d.due) <= _now,
        _IN_FLIGHT == 0,
    )
    .order_by(_d.incident)
    .limit(_FEW)
)
_UNSENT = told.where(_OPEN, _d.incident == bindparam("of_incident")).order_by(_d.sequence)
_TAKE = (
    update(deliveries)
    .where(_d.id == bindparam("taken"))
    .values(state=DeliveryState.INFLIGHT, first_attempt_at=func.coalesce(_d.first_attempt_at, _now))
)
_COVERED = told.where(_d.superseded_by == bindparam("by"))
NEWEST = select(events.c.body).join(
    incidents, (incidents.c.id == events.c.incident) & (incidents.c.sequence == events.c.sequence)
)
_LATEST = NEWEST.where(incidents.c.id == bindparam("incident"))
_TAKEN = exists().where(
    _rival.sink == _d.sink,
    _rival.incident == _d.incident,
    _rival.settled_at.is_(None),
    _rival.state == DeliveryState.INFLIGHT,
)
NEXT_DUE = select(_d.due).where(_OPEN, ~_TAKEN).order_by(_d.due).limit(1)


def take(
    db: Connection,
    sink: str,
    now: datetime,
    limit: int,
    edits_from: datetime | None,
    unreadable: list[str],
) -> list[Claim]:
    """Claim up to `limit` deliveries, one of an incident, and none of one that is in flight.

    An incident that is due but must wait is put off as a whole, so that it neither stands in the
    way of others nor keeps `NEXT_DUE` in the past. A delivery that cannot be read, or whose event
    cannot, is settled as dead and its id added to `unreadable`: others are not to wait for it.
    """

    def claims() -> Iterator[Claim]:
        asked = {"of_sink": sink, "now": now}
        for batch in (limit, _DEEP):
            heads = db.scalars(_HEADS, asked | {"batch": batch}).all()
            for incident in heads:
                mine = asked | {"of_incident": incident}
                there = db.execute(_UNSENT, mine).mappings().all()
                found = _readable(there)
                if len(found) < max(len(there), 1):
                    unreadable.extend(_give_up(db, mine, [row["id"] for row in found], now))
                if not found:
                    continue
                choice = choose([row["unsent"] for row in found], now, edits_from)
                if choice.due <= now:
                    yield _claim(db, found, choice, now)
                else:
                    due = (_OPEN, _d.incident == incident, _d.due <= now)
                    db.execute(update(deliveries).where(*due).values(due=choice.due), mine)
            if len(heads) < batch:
                return

    return list(islice(claims(), limit))


def add_new(
    db: Connection,
    add: Executable,
    record: Record,
    at: datetime,
    idle: Collection[str],
) -> dict[str, Claim]:
    """Record one delivery for each idle sink, as in flight if nothing of its incident is ahead of it.

    Only what tells its own event and no more: nothing else about it need be looked up.
    """
    told, first = {event.id: event for event in record.events}, dict[str, Delivery]()
    for one in sorted(record.deliveries, key=lambda each: each.sequence):
        due = one.state is DeliveryState.PENDING and one.part is Part.EVENT and one.due <= at
        if due and one.sink in idle and one.event in told:
            first.setdefault(one.sink, one)
    claims = {}
    for sink, one in first.items():
        mine = {"of_sink": sink, "of_incident": one.incident, "now": at}
        if db.scalar(add, {**rows.delivery_row(one, at), **mine}) == DeliveryState.INFLIGHT:
            event = told[one.event]
            claims[sink] = Claim(
                one, 0, at, ambiguous=False, last_error="", event=event, latest=event, thread=None,
                covers=(event,), waiting_since=at,
            )  # fmt: skip
    return claims


def compact(
    db: Connection, sink: str, now: datetime, part: Part, after: str
) -> tuple[list[Choice], str]:
    """Replace what a claim would replace now, and send nothing; a hundred incidents at a time.

    Of `part` see `core.outbox.superfluous`. Returns the last incident, after which it goes on, or
    nothing once there are no more.
    """
    asked = {"of_sink": sink, "now": now, "of_part": part, "after": after}
    crowded = db.scalars(_CROWDED, asked | {"least": 2 if part is Part.EDIT else 1}).all()
    choices = []
    for incident in crowded:
        mine = asked | {"of_incident": incident}
        found = _readable(db.execute(_UNSENT, mine).mappings())
        choice = superfluous([row["unsent"] for row in found], part)
        if choice and choice.supersede and choice.due <= now:
            sent = _replace(db, found, choice, now)["id"]
            db.execute(update(deliveries).where(_d.id == sent).values(due=choice.due))
            choices.append(choice)
    return choices, crowded[-1] if crowded else ""


def _readable(found: Iterable[rows.Row]) -> list[rows.Row]:
    return [row for row in (rows.readable(_read, each) for each in found) if row is not None]


def _give_up(db: Connection, mine: rows.Row, but: Sequence[str], now: datetime) -> Sequence[str]:
    """Settle what is left of an incident for a sink, and say what that was."""
    end = {"state": DeliveryState.DEAD, "reason": "unreadable", "settled_at": now}
    lost = (_OPEN, _d.incident == bindparam("of_incident"), _d.id.not_in(but))
    ids = db.scalars(select(_d.id).where(*lost), mine).all()
    db.execute(update(deliveries).where(_d.id.in_(ids)).values(end))
    return ids


def _read(row: rows.Row) -> rows.Row:
    """An open row with its event, and with what the choice needs to know."""
    told, tried = rows.event(row["body"]), row["first_attempt_at"] is not None
    unsent = Unsent(rows.delivery(row), told.edge, told.digest, tried, row["ambiguous"])
    return {**row, "told": told, "unsent": unsent}


def _claim(db: Connection, found: Sequence[rows.Row], choice: Choice, now: datetime) -> Claim:
    sent, row = choice.send, _replace(db, found, choice, now)
    db.execute(_TAKE, {"taken": sent.id, "now": now})
    latest, covered = None, []
    if sent.part is not Part.EVENT:  # it tells its own event only, whatever came after it
        covered = _readable(db.execute(_COVERED, {"by": sent.id}).mappings())
        latest = db.scalars(_LATEST, {"incident": sent.incident}).first()
    untold = sorted([row, *covered], key=lambda one: one["sequence"])
    return Claim(
        delivery=sent,
        attempts=row["attempts"],
        recorded_at=row["recorded_at"],
        ambiguous=row["ambiguous"],
        last_error=row["reason"],
        event=row["told"],
        latest=rows.readable(rows.event, latest) or row["told"],
        thread=_thread(db, row) if sent.part is not Part.EVENT else None,
        # Each once: a post may replace both the edit and the reply of an event.
        covers=tuple({one["told"].sequence: one["told"] for one in untold}.values()),
        members=_members(db, row["told"]),
        waiting_since=min(one["recorded_at"] for one in untold),
        redriven_at=row["redriven_at"],
        superseded=choice.supersede,
    )


def _replace(db: Connection, found: Sequence[rows.Row], choice: Choice, now: datetime) -> rows.Row:
    """The row to send, in the place of those that it supersedes."""
    sent = choice.send
    row = next((row for row in found if row["id"] == sent.id), None)
    if row is None:  # it takes the place of others, as if recorded with its event
        sibling = next(row for row in found if row["event"] == sent.event)
        again = {name: sibling[name] for name in ("redriven_at", "redriven_by")}
        fresh = {**rows.delivery_row(sent, sibling["recorded_at"]), **again}
        db.execute(insert(deliveries), fresh)
        row = {**sibling, **fresh}
    if ids := [one.id for one in choice.supersede]:
        told = or_(_d.id.in_(ids), _d.superseded_by.in_(ids))  # what these had replaced, too
        ended = {"state": DeliveryState.SUPERSEDED, "settled_at": func.coalesce(_d.settled_at, now)}
        db.execute(update(deliveries).where(told).values(ended | {"superseded_by": sent.id}))
    return row


def _thread(db: Connection, row: rows.Row) -> Json | None:
    """The receipt of the incident's newest message."""
    mine = (_d.incident == row["incident"], _d.sink == row["sink"], _d.part != Part.EVENT)
    posted = select(_d.receipt).where(*mine)
    newest = posted.order_by(_d.settled_at.desc(), _d.sequence.desc())
    receipt = db.scalars(newest.where(_d.receipt.is_not(None)).limit(1)).first()
    return rows.readable(rows.receipt, receipt)


def _members(db: Connection, event: Event) -> tuple[Event, ...]:
    """Of a digest: the newest event of each incident in it."""
    if not event.digest:
        return ()
    grouped = (_d.digest == event.incident) & (_d.state == DeliveryState.GROUPED)
    members = NEWEST.where(incidents.c.id.in_(select(_d.incident).where(grouped)))
    bodies = db.scalars(members.order_by(incidents.c.id))
    return tuple(filter(None, (rows.readable(rows.event, body) for body in bodies)))
