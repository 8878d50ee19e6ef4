"""The record in a SQL database: each method is one transaction, all of them in one thread."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    case,
    delete,
    exists,
    func,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from watcher.core.delivery import DeliveryState, Part
from watcher.core.events import ENDS, Event
from watcher.core.ledger import UNSETTLED
from watcher.core.model import EPOCH
from watcher.core.outbox import Choice
from watcher.core.retry import LONGEST_WAIT, SinkState
from watcher.ports import UNTOLD, Claim, Queued, Record, Saved, Settlement
from watcher.stores import rows
from watcher.stores.claim import NEXT_DUE, add_new, compact, take
from watcher.stores.ledger import Ledger
from watcher.stores.schema import Instant, clusters, deliveries, events, incidents, phases, sinks

Insert = sqlite.Insert | postgresql.Insert

_d = deliveries.c
_rival = deliveries.alias().c
_OPEN = _d.settled_at.is_(None)
_FORGET = delete(phases).where(
    phases.c.cluster == bindparam("of_cluster"), phases.c.uid == bindparam("of_uid")
)

_TOLD = (
    select(incidents.c.id, incidents.c.ended_at, events.c.body, _d.receipt)
    .join(deliveries, _d.incident == incidents.c.id)
    .join(events, events.c.id == _d.event)
    .where(_d.state == DeliveryState.DELIVERED)
    .order_by(incidents.c.id, _d.sequence)
)

_ASIDE: Final = "unreadable/"
_KEPT = ~phases.c.uid.startswith(_ASIDE)


class SqlStore(Ledger):
    """`ports.Store` on an engine whose schema is up to date; `stores.database` opens it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unreadable: Callable[[str, str], None] = lambda table, key: None
        """Told of each row that is damaged, and was put out of the way of all others."""
        dialect = self.engine.dialect.name
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        self._save = _upsert(insert(phases))
        self._mark_seen = _upsert(insert(clusters))
        self._keep_state = _upsert(insert(sinks))
        self._advance = _upsert(insert(incidents), only_newer="sequence")
        self._add_event = insert(events).on_conflict_do_nothing()
        self._add_delivery = _add_or_group(insert(deliveries))
        self._add_free = _add_free(insert(deliveries))

    async def load(self, cluster: str) -> Sequence[Saved]:
        found = select(phases.c.uid, phases.c.body).where(phases.c.cluster == cluster, _KEPT)
        kept = await self._read(lambda db: db.execute(found).all())
        read = {uid: rows.readable(rows.saved, body) for uid, body in kept}
        if damaged := [uid for uid, saved in read.items() if saved is None]:
            await self._write(lambda db: _set_aside(db, cluster, damaged))
            self._tell("phases", damaged)
        return [saved for saved in read.values() if saved is not None]

    async def clusters(self) -> Sequence[str]:
        found = select(phases.c.cluster).where(_KEPT).distinct().order_by(phases.c.cluster)
        return await self._read(lambda db: db.scalars(found).all())

    async def seen_at(self, cluster: str) -> datetime | None:
        found = select(clusters.c.seen_at).where(clusters.c.name == cluster)
        return await self._read(lambda db: db.scalar(found))

    async def mark_seen(self, cluster: str, at: datetime) -> None:
        seen = {"name": cluster, "seen_at": at}
        await self._write(lambda db: db.execute(self._mark_seen, seen))

    async def record(
        self, record: Record, at: datetime, idle: Collection[str] = ()
    ) -> Mapping[str, Claim]:
        def work(db: Connection) -> Mapping[str, Claim]:
            for statement, values in (
                (self._save, [rows.saved_row(one) for one in record.saved]),
                (_FORGET, [{"of_cluster": s.cluster, "of_uid": s.uid} for s in record.forgotten]),
                (self._advance, [rows.incident_row(one) for one in record.events]),
                (self._add_event, [rows.event_row(one, at) for one in record.events]),
            ):
                if values:
                    db.execute(statement, values)
            claims = add_new(db, self._add_free, record, at, idle)
            taken = {claim.delivery.id for claim in claims.values()}
            queued = [one for one in record.deliveries if one.id not in taken]
            if queued:
                db.execute(self._add_delivery, [rows.delivery_row(one, at) for one in queued])
            return claims

        return await self._decide(work)

    async def reclaim(self, sink: str, now: datetime, busy: Sequence[str] = ()) -> int:
        """Exclusive use proves that nobody else has them in flight."""
        queue, latest = update(deliveries).where(_d.sink == sink, _OPEN), now + LONGEST_WAIT
        found = queue.where(_d.state == DeliveryState.INFLIGHT, _d.incident.not_in(busy))
        again = {"state": DeliveryState.PENDING, "due": now, "ambiguous": True}

        def work(db: Connection) -> int:
            count = db.execute(found.values(again | {"attempts": _d.attempts + 1})).rowcount
            # Nothing waits longer than this, so what does was written under a clock that ran ahead.
            db.execute(queue.where(_d.due > latest).values(due=latest))
            # How long a parked sink is spared is the sink's own state, which a restart ends.
            parked = (_d.state == DeliveryState.PARKED) & (_d.due > now)
            db.execute(queue.where(parked).values(due=now))
            return count

        return await self._write(work)

    async def strand(self, sinks: Sequence[str]) -> Mapping[str, int]:
        lost = (_d.sink.not_in(sinks), _OPEN, _d.reason != "sink_removed")
        parked = {"state": DeliveryState.PARKED, "reason": "sink_removed"}

        def work(db: Connection) -> Mapping[str, int]:
            counted = select(_d.sink, func.count()).where(*lost).group_by(_d.sink)
            found = {sink: count for sink, count in db.execute(counted)}  # noqa: C416 - for mypy
            if found:
                db.execute(update(deliveries).where(*lost).values(parked))
            return found

        return await self._write(work)

    async def claim(
        self, sink: str, now: datetime, limit: int, edits_from: datetime | None = None
    ) -> Sequence[Claim]:
        damaged: list[str] = []
        claims = await self._write(lambda db: take(db, sink, now, limit, edits_from, damaged))
        self._tell("deliveries", damaged)
        return claims

    async def compact(
        self, sink: str, now: datetime, part: Part, after: str = ""
    ) -> tuple[Sequence[Choice], str]:
        return await self._write(lambda db: compact(db, sink, now, part, after))

    async def settle(self, settlement: Settlement) -> None:
        end = settlement
        changes: dict[str, Any] = {
            "state": end.state,
            "attempts": _d.attempts + int(end.counted),
            "settled_at": None if end.state in UNSETTLED else end.at,
            "receipt": None if end.receipt is None else rows.json(end.receipt),
        }
        if end.due:
            changes["due"] = end.due
        if end.ambiguous:
            changes["ambiguous"] = True
        if end.reason:  # a success keeps what went wrong before: it is why it was late
            changes |= {"reason": rows.text(end.reason), "detail": rows.text(end.detail)}

        def work(db: Connection) -> None:
            mine = _d.id == end.delivery
            db.execute(update(deliveries).where(mine, _OPEN).values(changes))
            if end.sink is not None:
                sink = db.scalar(select(_d.sink).where(mine))
                db.execute(self._keep_state, {"name": sink, "body": rows.json(end.sink)})

        await self._write(work)

    async def sink_state(self, sink: str) -> SinkState:
        found = select(sinks.c.body).where(sinks.c.name == sink)
        kept = await self._read(lambda db: db.scalar(found))
        return rows.readable(rows.sink_state, kept) or SinkState()

    async def told(self, sink: str, incident: str) -> Sequence[Event]:
        found = _TOLD.where(_d.sink == sink, _d.incident == incident)
        rows_of_it = await self._read(lambda db: db.execute(found).all())
        return _told((body, receipt) for _, _, body, receipt in rows_of_it)

    async def standing(self, sink: str, since: datetime) -> Sequence[Sequence[Event]]:
        ended_at = incidents.c.ended_at
        found = _TOLD.where(_d.sink == sink, ended_at.is_(None) | (ended_at > since))
        there = await self._read(lambda db: db.execute(found).all())
        told = []
        for (_, ended), of_it in groupby(there, key=lambda row: (row[0], row[1])):
            events_of_it = _told((body, receipt) for _, _, body, receipt in of_it)
            # One whose end is yet to be sent neither stands nor has ended there.
            if events_of_it and (ended is None or events_of_it[-1].edge in ENDS):
                told.append(events_of_it)
        return told

    async def next_due(self, sink: str) -> datetime | None:
        due = await self._read(lambda db: db.scalar(NEXT_DUE, {"of_sink": sink}))
        return None if due == EPOCH else due  # a damaged one is not due before it is reclaimed

    async def queue(self) -> Sequence[Queued]:
        group = (_d.sink, _d.state)
        waiting = select(*group, func.count(), func.min(_d.recorded_at)).where(_OPEN)
        ordered = waiting.group_by(*group).order_by(*group)
        found = await self._read(lambda db: db.execute(ordered).all())
        known = DeliveryState.__members__.values()
        return [(row[0], DeliveryState(row[1]), row[2], row[3]) for row in found if row[1] in known]

    async def prune(self, before: datetime) -> int:
        """Forget incidents that ended before, with all that was told of them; say how many.

        One with a delivery that is still open stays, and one in a digest until that has gone, which
        names it with each edit. So many at a time that nobody has to wait.
        """
        mine, digest = _d.incident == incidents.c.id, incidents.alias().c
        unsent, told = exists().where(mine, _OPEN), exists().where(mine, _d.digest == digest.id)
        ended = incidents.c.ended_at < before
        found = select(incidents.c.id).where(ended, ~unsent, ~told).limit(500)

        def work(db: Connection) -> int:
            over = list(db.scalars(found))
            for column in (_d.incident, events.c.incident, incidents.c.id) if over else ():
                db.execute(delete(column.table).where(column.in_(over)))
            return len(over)

        return await self._write(work)

    async def ping(self) -> None:
        """Commit a write: a full disk or a read-only volume shows only then."""
        same = text("UPDATE alembic_version SET version_num = version_num")
        await self._write(lambda db: db.execute(same))

    def _tell(self, table: str, damaged: Sequence[str]) -> None:
        for key in damaged:
            self.unreadable(table, key)


def _told(found: Iterable[tuple[str, str | None]]) -> list[Event]:
    """Of one incident, each event once: it may have been a post and a reply."""
    told = {
        body: rows.readable(rows.event, body)
        for body, receipt in found
        if rows.readable(rows.receipt, receipt) != UNTOLD
    }
    return [event for event in told.values() if event is not None]


def _set_aside(db: Connection, cluster: str, uids: Sequence[str]) -> None:
    """Keep what cannot be read where nobody looks for it, for whoever wants to mend it."""
    for uid in uids:
        aside = f"{_ASIDE}{uid}"
        db.execute(_FORGET, {"of_cluster": cluster, "of_uid": aside})
        mine = (phases.c.cluster == cluster, phases.c.uid == uid)
        db.execute(update(phases).where(*mine).values(uid=aside))


def _add_or_group(insert: Insert) -> Insert:
    """Insert; one that is there stays as it is, unless a digest takes it in before it was tried."""
    changed = {name: insert.excluded[name] for name in ("state", "reason", "digest", "settled_at")}
    untried = (_d.state == DeliveryState.PENDING) & _d.first_attempt_at.is_(None)
    grouped = insert.excluded["state"] == DeliveryState.GROUPED
    return insert.on_conflict_do_update(
        index_elements=deliveries.primary_key, set_=changed, where=untried & grouped
    )


def _add_free(insert: Insert) -> Executable:
    """Insert what is to be sent now: in flight, unless something of its incident is ahead of it."""
    ahead = exists().where(
        _rival.sink == bindparam("of_sink"),
        _rival.incident == bindparam("of_incident"),
        _rival.settled_at.is_(None),
    )
    state = case((ahead, DeliveryState.PENDING), else_=DeliveryState.INFLIGHT)
    tried = case((ahead, null()), else_=bindparam("now", type_=Instant()))
    free = insert.values(state=state, first_attempt_at=tried).on_conflict_do_nothing()
    return free.returning(_d.state)


def _upsert(insert: Insert, only_newer: str = "") -> Insert:
    """Insert, or else overwrite all but the key; where `only_newer` has grown, if it is given."""
    table, new = insert.table, insert.excluded
    changed = {column.name: new[column.name] for column in table.c if not column.primary_key}
    newer = new[only_newer] > table.c[only_newer] if only_newer else None
    return insert.on_conflict_do_update(index_elements=table.primary_key, set_=changed, where=newer)
