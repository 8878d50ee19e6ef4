"""The record as it is asked for: who was told what, what is stuck, and all of it at one instant."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Unpack

from sqlalchemy import ColumnElement, Connection, Select, Table, exists, func, select, update

from watcher.core.delivery import DeliveryState
from watcher.core.events import Event
from watcher.core.ledger import REDRIVABLE, Kept, LedgerRow
from watcher.core.model import Subject
from watcher.core.phases import Clearing, Firing
from watcher.ports import Wanted
from watcher.stores import rows
from watcher.stores.claim import NEWEST
from watcher.stores.schema import deliveries, events, incidents, phases, told
from watcher.stores.transactions import Transactions

_AT_ONCE: Final = 500
_d = deliveries.c
_end = deliveries.alias().c
_END_TOLD = exists().where(
    incidents.c.id == _d.incident,
    incidents.c.ended_at.is_not(None),
    _end.incident == _d.incident,
    _end.sink == _d.sink,
    _end.sequence == incidents.c.sequence,
    _end.state == DeliveryState.DELIVERED,
)
_FITS: Final[Mapping[str, Callable[[Any], ColumnElement[bool]]]] = {
    "since": _d.recorded_at.__ge__,
    "until": _d.recorded_at.__le__,
    "namespace": incidents.c.namespace.__eq__,
    "name": incidents.c.name.__eq__,
    "sink": _d.sink.__eq__,
    "incident": partial(_d.incident.endswith, autoescape=True),
    "delivery": partial(_d.id.endswith, autoescape=True),
    "states": _d.state.in_,
}


class Ledger(Transactions):
    """What is asked of the record by those who answer for it; part of `ports.Store`."""

    async def history(self, limit: int = 200, **wanted: Unpack[Wanted]) -> Sequence[LedgerRow]:
        found = (
            told.join(incidents, incidents.c.id == _d.incident)
            .order_by(
                _d.recorded_at.desc(), _d.incident.desc(), _d.sequence.desc(), _d.sink, _d.part
            )
            .limit(limit)
        )
        for name, value in wanted.items():
            if value:
                found = found.where(_FITS[name](value))
        there = await self._read(lambda db: db.execute(found).mappings().all())
        return [row for row in (rows.readable(rows.ledger_row, one) for one in there) if row]

    async def redrive(
        self, ids: Sequence[str], at: datetime, by: str, *, after_end: bool
    ) -> Sequence[str]:
        """Due since they were recorded: whose clock is ahead, this process's or the other's, is open."""
        again = {
            "state": DeliveryState.PENDING, "settled_at": None, "due": _d.recorded_at,
            "redriven_at": at, "redriven_by": by,
        }  # fmt: skip
        stopped = update(deliveries).where(_d.state.in_(REDRIVABLE)).values(again)
        if not after_end:
            stopped = stopped.where(~_END_TOLD)

        def work(db: Connection) -> Sequence[str]:
            done: list[str] = []
            for start in range(0, len(ids), 500):
                mine = _d.id.in_(ids[start : start + 500])
                done += db.scalars(stopped.where(mine).returning(_d.id))
            return done

        return await self._write(work)

    async def redriven(self) -> Sequence[tuple[str, datetime, str, int]]:
        asked = (func.max(_d.redriven_at), func.max(_d.redriven_by), func.count())
        still_open = (_d.redriven_at.is_not(None), _d.settled_at.is_(None))
        found = select(_d.sink, *asked).where(*still_open).group_by(_d.sink)
        return await self._read(lambda db: [tuple(row) for row in db.execute(found)])

    async def incidents(
        self, *, still_open: bool = False, namespace: str = "", incident: str = "", limit: int = 100
    ) -> Sequence[Event]:
        i = incidents.c
        found = NEWEST.order_by(i.opened_at.desc(), i.id.desc()).limit(limit)
        for wanted, condition in (
            (still_open, i.ended_at.is_(None)),
            (namespace, i.namespace == namespace),
            (incident, i.id == incident),
            (not incident, i.uid.not_like("digest/%")),
        ):
            if wanted:
                found = found.where(condition)
        return await self._events(found)

    async def events(self, incident: str) -> Sequence[Event]:
        e = events.c
        return await self._events(select(e.body).where(e.incident == incident).order_by(e.sequence))

    async def _events(self, bodies: Select[tuple[str]]) -> Sequence[Event]:
        found = await self._read(lambda db: db.scalars(bodies).all())
        return [event for event in (rows.readable(rows.event, body) for body in found) if event]


def followed(db: Connection) -> set[str]:
    """Incidents that some subject's phase holds as open."""
    bodies = db.scalars(select(phases.c.body))
    known = filter(None, (rows.readable(rows.saved, body) for body in bodies))
    return {one.phase.incident.id for one in known if isinstance(one.phase, Firing | Clearing)}


def kept(db: Connection) -> Iterator[Kept]:
    """Every incident with its events in order and its deliveries; few of them in memory."""
    i = incidents.c
    pages = select(incidents).order_by(i.id).limit(_AT_ONCE)
    last = ""
    while page := db.execute(pages.where(i.id > last)).mappings().all():
        first, last = page[0]["id"], page[-1]["id"]
        told, tried = (_between(db, table, first, last) for table in (events, deliveries))
        for row in page:
            subject = Subject(*(row[name] for name in Subject.__struct_fields__))
            mine = told[row["id"]]
            known = {e["id"]: event for e in mine if (event := _recorded(e, subject)) is not None}
            sent = {one["id"]: _sent(one, known) for one in tried[row["id"]]}
            yield Kept(
                row["id"], subject, row["sequence"], row["ended_at"], tuple(known.values()),
                tuple(filter(None, sent.values())),
                tuple(name for name, found in sent.items() if not found),
            )  # fmt: skip
    named = select(deliveries.c.incident).where(deliveries.c.incident.not_in(select(i.id)))
    for incident in db.scalars(named.distinct()):
        yield Kept(incident, Subject(""), 0, None, (), ())


def _recorded(row: rows.Row, subject: Subject) -> Event | None:
    """What was recorded; nothing if it is not what its row and its incident say."""
    told = rows.readable(rows.event, row["body"])
    named = (row["id"], row["incident"], row["sequence"], subject)
    return told if told and (told.id, told.incident, told.sequence, told.subject) == named else None


def _sent(row: rows.Row, events: Mapping[str, Event]) -> LedgerRow | None:
    if (told := events.get(row["event"])) is None or row["sequence"] != told.sequence:
        return None
    read = rows.readable(lambda row: rows.ledger_row(row, told), row)
    return read if read and read.delivery.id == row["id"] else None


def _between(
    db: Connection, table: Table, first: str, last: str
) -> Mapping[str, Sequence[rows.Row]]:
    found: defaultdict[str, list[rows.Row]] = defaultdict(list)
    ordered = select(table).where(table.c.incident.between(first, last)).order_by(table.c.sequence)
    for row in db.execute(ordered).mappings():
        found[row["incident"]].append(row)
    return found
