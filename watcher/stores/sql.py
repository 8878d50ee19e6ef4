"""The record in a SQL database: each method is one transaction, all of them in one thread."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    RowMapping,
    Select,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from watcher.core.model import DeliveryState
from watcher.core.retry import LONGEST_WAIT, SinkState
from watcher.errors import StoreError
from watcher.ports import Claim, Clock, LedgerRow, Record, Saved, Settlement
from watcher.stores import rows
from watcher.stores.claim import NEXT_DUE, Request, take
from watcher.stores.schema import clusters, deliveries, events, incidents, leases, phases, sinks

T = TypeVar("T")
Insert = sqlite.Insert | postgresql.Insert

_d = deliveries.c
_OPEN = _d.settled_at.is_(None)

_LOAD = select(phases).where(phases.c.cluster == bindparam("cluster"))
_FORGET = delete(phases).where(
    phases.c.cluster == bindparam("of_cluster"), phases.c.uid == bindparam("of_uid")
)
_SEEN_AT = select(clusters.c.seen_at).where(clusters.c.name == bindparam("name"))
_SINK_STATE = select(sinks.c.state).where(sinks.c.name == bindparam("name"))
_SINK_OF = select(_d.sink).where(_d.id == bindparam("delivery"))
_SETTLE = (
    update(deliveries)
    .where(_d.id == bindparam("delivery"), _OPEN)
    .values(
        state=bindparam("becomes"),
        due_at=func.coalesce(bindparam("until", type_=_d.due_at.type), _d.due_at),
        attempts=_d.attempts + bindparam("counted"),
        settled_at=bindparam("final_at"),
        ambiguous=or_(_d.ambiguous, bindparam("may_have_arrived", type_=_d.ambiguous.type)),
        # A success keeps what went wrong before: it is why the delivery was late.
        reason=func.coalesce(bindparam("why", type_=_d.reason.type), _d.reason),
        detail=func.coalesce(bindparam("what", type_=_d.detail.type), _d.detail),
        receipt=bindparam("proof"),
    )
)
_RECLAIM = (
    update(deliveries)
    .where(_d.sink == bindparam("of_sink"), _OPEN, _d.state == DeliveryState.INFLIGHT)
    .values(
        state=DeliveryState.PENDING,
        due_at=bindparam("now"),
        attempts=_d.attempts + 1,
        ambiguous=True,
    )
)
# Nothing waits longer than this, so what does was written under a clock that ran ahead.
_CLAMP = (
    update(deliveries)
    .where(_d.sink == bindparam("of_sink"), _OPEN, _d.due_at > bindparam("latest"))
    .values(due_at=bindparam("latest"))
)
_QUEUE = (
    select(_d.sink, _d.state, func.count(), func.min(_d.recorded_at))
    .where(_OPEN)
    .group_by(_d.sink, _d.state)
    .order_by(_d.sink, _d.state)
)
_OVER = (
    select(incidents.c.id)
    .where(
        incidents.c.ended_at < bindparam("before"),
        ~exists().where(_d.incident == incidents.c.id, _OPEN),
    )
    .limit(500)
)
_HISTORY = (
    select(deliveries, events.c.body)
    .join(events, events.c.id == _d.event)
    .join(incidents, incidents.c.id == _d.incident)
    .order_by(_d.recorded_at.desc(), _d.incident.desc(), _d.sequence.desc(), _d.id)
)


class SqlStore:
    """`ports.Store` on an engine whose schema is up to date; `stores.database` opens it.

    A whole transaction is one hop into the store's own thread: simpler and faster than an
    asynchronous driver, and no two transactions of a process wait for each other's locks.
    """

    def __init__(self, engine: Engine, clock: Clock, release: Callable[[], None]) -> None:
        self._reads = engine
        self._writes = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._clock = clock
        self._release = release
        self._thread = ThreadPoolExecutor(1, "store")
        insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._save = _upsert(insert(phases))
        self._mark_seen = _upsert(insert(clusters))
        self._keep_state = _upsert(insert(sinks))
        self._touch = _upsert(insert(leases))
        self._advance = _upsert(insert(incidents), only_newer="sequence")
        self._add_event = insert(events).on_conflict_do_nothing()
        self._add_delivery = insert(deliveries).on_conflict_do_nothing()

    async def load(self, cluster: str) -> Sequence[Saved]:
        """See `ports.Store`; so with all that follow."""
        return await self._read(
            lambda db: [rows.saved(row) for row in _all(db, _LOAD, cluster=cluster)]
        )

    async def seen_at(self, cluster: str) -> datetime | None:
        """None before the first time."""
        return await self._read(lambda db: db.scalar(_SEEN_AT, {"name": cluster}))

    async def mark_seen(self, cluster: str, at: datetime) -> None:
        """Keep that time."""
        await self._do(self._mark_seen, {"name": cluster, "seen_at": at})

    async def record(self, record: Record, at: datetime) -> None:
        """Commit one decision, or nothing of it."""
        await self._write(lambda db: self._record(db, record, at))

    def _record(self, db: Connection, record: Record, at: datetime) -> None:
        _many(db, self._save, (rows.saved_row(saved, at) for saved in record.saved))
        _many(
            db,
            _FORGET,
            ({"of_cluster": gone.cluster, "of_uid": gone.uid} for gone in record.forgotten),
        )
        _many(db, self._advance, (rows.incident_row(event) for event in record.events))
        _many(db, self._add_event, (rows.event_row(event, at) for event in record.events))
        _many(db, self._add_delivery, (rows.delivery_row(item, at) for item in record.deliveries))

    async def reclaim(self, sink: str, now: datetime) -> int:
        """Exclusive use proves that whoever had them in flight is dead."""

        def work(db: Connection) -> int:
            found = db.execute(_RECLAIM, {"of_sink": sink, "now": now}).rowcount
            db.execute(_CLAMP, {"of_sink": sink, "latest": now + LONGEST_WAIT})
            return found

        return await self._write(work)

    async def claim(
        self,
        sink: str,
        now: datetime,
        limit: int,
        lease: timedelta,
        busy: Sequence[str] = (),
        edits_from: datetime | None = None,
    ) -> Sequence[Claim]:
        """See `stores.claim`."""
        request = Request(sink, now, limit, lease, tuple(busy), edits_from)
        return await self._write(lambda db: take(db, request))

    async def settle(self, settlement: Settlement) -> None:
        """Write an attempt's end, and how its sink stands."""
        end = settlement
        values = {
            "delivery": end.delivery,
            "becomes": end.state,
            "until": end.due,
            "counted": int(end.counted),
            "final_at": None if end.state in rows.OPEN else end.at,
            "may_have_arrived": end.ambiguous,
            "why": end.reason or None,
            "what": end.detail if end.reason else None,
            "proof": None if end.receipt is None else rows.json(end.receipt),
        }

        def work(db: Connection) -> None:
            db.execute(_SETTLE, values)
            if end.sink is not None:
                sink = db.scalar(_SINK_OF, {"delivery": end.delivery})
                db.execute(self._keep_state, {"name": sink, "state": rows.json(end.sink)})

        await self._write(work)

    async def sink_state(self, sink: str) -> SinkState:
        """A fresh one before the first trouble."""
        kept = await self._read(lambda db: db.scalar(_SINK_STATE, {"name": sink}))
        return rows.sink_state(kept) if kept else SinkState()

    async def next_due(self, sink: str) -> datetime | None:
        """See `ports.Store`."""
        return await self._read(lambda db: db.scalar(NEXT_DUE, {"of_sink": sink}))

    async def queue(self, now: datetime) -> Sequence[tuple[str, DeliveryState, int, datetime]]:
        """See `ports.Store`."""
        found = await self._read(lambda db: db.execute(_QUEUE).all())
        return [(sink, DeliveryState(state), count, oldest) for sink, state, count, oldest in found]

    async def history(
        self,
        since: datetime | None = None,
        namespace: str = "",
        name: str = "",
        sink: str = "",
        incident: str = "",
        limit: int = 200,
    ) -> Sequence[LedgerRow]:
        """Deliveries, newest first; an empty argument matches all."""
        found = _HISTORY.limit(limit)
        if since is not None:
            found = found.where(_d.recorded_at >= since)
        for column, wanted in (
            (incidents.c.namespace, namespace),
            (incidents.c.name, name),
            (_d.sink, sink),
            (_d.incident, incident),
        ):
            if wanted:
                found = found.where(column == wanted)
        return await self._read(lambda db: [rows.ledger_row(row) for row in _all(db, found)])

    async def prune(self, before: datetime) -> int:
        """Forget incidents that ended before, with all that was told of them; say how many.

        One with a delivery that is still open stays; so many at a time that nobody has to wait.
        """

        def work(db: Connection) -> int:
            over = list(db.scalars(_OVER, {"before": before}))
            db.execute(delete(deliveries).where(_d.incident.in_(over)))
            db.execute(delete(events).where(events.c.incident.in_(over)))
            db.execute(delete(incidents).where(incidents.c.id.in_(over)))
            return len(over)

        return await self._write(work)

    async def ping(self) -> None:
        """Commit a change: a full disk or a read-only volume shows only then."""
        beat = {"name": "ping", "holder": "", "token": 0, "expires_at": self._clock.now()}
        await self._do(self._touch, beat)

    async def close(self) -> None:
        """Finish what runs and let go of the database."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reads.dispose)
        self._thread.shutdown()
        self._release()

    async def _do(self, statement: Executable, values: dict[str, Any]) -> None:
        await self._write(lambda db: db.execute(statement, values))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._transact(self._writes, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._transact(self._reads, work)

    async def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with engine.begin() as db:
                return work(db)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)
        except SQLAlchemyError as error:
            raise store_error(error) from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"a row cannot be read: {error}") from error


def store_error(error: SQLAlchemyError) -> StoreError:
    """Say what the database said, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return StoreError(f"{type(cause).__name__}: {cause}".splitlines()[0])


def _upsert(insert: Insert, only_newer: str = "") -> Insert:
    """Insert, or else overwrite all but the key; where `only_newer` has grown, if it is given."""
    table = insert.table
    changed = {
        column.name: insert.excluded[column.name] for column in table.c if not column.primary_key
    }
    newer = insert.excluded[only_newer] > table.c[only_newer] if only_newer else None
    return insert.on_conflict_do_update(index_elements=table.primary_key, set_=changed, where=newer)


def _all(db: Connection, query: Select[Any], **values: object) -> Sequence[RowMapping]:
    return db.execute(query, values).mappings().all()


def _many(db: Connection, statement: Executable, values: Iterable[rows.Row]) -> None:
    if batch := list(values):
        db.execute(statement, batch)
