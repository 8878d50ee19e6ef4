"""Whatever the interleaving of news, attempts, failures and crashes, everybody is told in the end."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Protocol

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.deliveries import NOW, delivery, event
from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Edge, Event
from watcher.core.outbox import Choice, Row, choose, superfluous
from watcher.ports import Record, Settlement
from watcher.stores.database import open_store
from watcher.stores.sql import SqlStore

PARTS = {
    "machine": {Edge.DEGRADED: [Part.EVENT], Edge.UPDATED: [Part.EVENT]},
    "threads": {Edge.DEGRADED: [Part.POST], Edge.UPDATED: [Part.EDIT, Part.REPLY]},
    "separate": {Edge.DEGRADED: [Part.POST], Edge.UPDATED: [Part.POST]},
    "digest": {Edge.DEGRADED: [Part.POST, Part.REPLY], Edge.UPDATED: [Part.EDIT, Part.REPLY]},
}
"""Of each kind of sink: what an opening is told with, and anything later."""

OPEN = {DeliveryState.PENDING, DeliveryState.INFLIGHT}
Step = str | tuple[str, bool] | tuple[str, int] | tuple[str, int, bool]
Rows = dict[str, tuple[DeliveryState, str, datetime]]
"""By id: the state, what it was superseded by, and when it is due."""

_steps = st.one_of(
    st.sampled_from(["record", "record", "record to the idle", "claim", "delivered", "replay"]),
    st.sampled_from(["record", "compact"]),
    st.tuples(st.just("retry"), st.integers(1, 30), st.booleans()),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("pass"), st.integers(1, 20)),
)
_stories = st.tuples(
    st.sampled_from(sorted(PARTS)), st.integers(1, 5), st.lists(_steps, max_size=30)
)


class Outbox(Protocol):
    """What a story is told to: the pure choice over a list, or a store."""

    async def record(
        self, events: list[Event], deliveries: list[Delivery], now: datetime, *, idle: bool = False
    ) -> Delivery | None: ...
    async def claim(self, now: datetime) -> Delivery | None: ...
    async def settle(self, sent: Delivery, due: datetime | None, ambiguous: bool) -> None: ...
    async def crash(self, now: datetime) -> None: ...
    async def compact(self, now: datetime) -> None: ...
    def rows(self) -> Rows: ...


class PureOutbox:
    """One incident's outbox as a dictionary, so that nothing but `choose` is under test."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._by: dict[str, str] = {}

    async def record(
        self, events: list[Event], deliveries: list[Delivery], now: datetime, *, idle: bool = False
    ) -> Delivery | None:
        edges = {one.id: one for one in events}
        for one in deliveries:
            told = edges[one.event]
            self._rows.setdefault(one.id, Row(one, told.edge, told.digest))
        return await self.claim(now) if idle else None

    async def claim(self, now: datetime) -> Delivery | None:
        open_rows = self._open()
        choice = choose(open_rows, now) if open_rows else None
        if choice is None or choice.due > now:
            return None
        self._replace(choice)
        self._change(choice.send.id, state=DeliveryState.INFLIGHT)
        self._rows[choice.send.id] = replace(self._rows[choice.send.id], tried=True)
        return choice.send

    async def compact(self, now: datetime) -> None:
        for part in (Part.EDIT, Part.POST):
            open_rows = self._open()
            choice = superfluous(open_rows, part) if open_rows else None
            if choice is not None and choice.due <= now:
                self._replace(choice)
                self._change(choice.send.id, due=choice.due)

    def _open(self) -> list[Row]:
        """What may be chosen from: nothing while one of them is in flight."""
        rows = [row for row in self._rows.values() if row.delivery.state in OPEN]
        flying = any(row.delivery.state is DeliveryState.INFLIGHT for row in rows)
        return [] if flying else rows

    def _replace(self, choice: Choice) -> None:
        sibling = next(row for row in self._open() if row.delivery.event == choice.send.event)
        self._rows.setdefault(choice.send.id, Row(choice.send, sibling.edge, sibling.digest))
        for one in choice.supersede:
            self._change(one.id, state=DeliveryState.SUPERSEDED)
            self._by[one.id] = one.id
            self._by = {k: choice.send.id if by == one.id else by for k, by in self._by.items()}

    async def settle(self, sent: Delivery, due: datetime | None, ambiguous: bool) -> None:
        if due is None:
            self._change(sent.id, state=DeliveryState.DELIVERED)
        else:
            self._change(sent.id, state=DeliveryState.PENDING, due=due)
            if ambiguous:
                self._rows[sent.id] = replace(self._rows[sent.id], ambiguous=True)

    async def crash(self, now: datetime) -> None:
        for row in tuple(self._rows.values()):
            if row.delivery.state is DeliveryState.INFLIGHT:
                await self.settle(row.delivery, now, ambiguous=True)

    def _change(self, key: str, **changes: object) -> None:
        row = self._rows[key]
        self._rows[key] = replace(row, delivery=replace(row.delivery, **changes))

    def rows(self) -> Rows:
        return {
            key: (row.delivery.state, self._by.get(key, ""), row.delivery.due)
            for key, row in self._rows.items()
        }


class SqlOutbox:
    """The same over a real store."""

    def __init__(self, store: SqlStore, path: Path, sink: str) -> None:
        self._store, self._path, self._sink = store, path, sink
        self.covered: list[tuple[int, ...]] = []
        """What each claim said that it tells."""

    async def record(
        self, events: list[Event], deliveries: list[Delivery], now: datetime, *, idle: bool = False
    ) -> Delivery | None:
        record = Record(events=tuple(events), deliveries=tuple(deliveries))
        claims = await self._store.record(record, now, [self._sink] if idle else [])
        return claims[self._sink].delivery if claims else None

    async def claim(self, now: datetime) -> Delivery | None:
        claims = await self._store.claim(self._sink, now, 4)
        self.covered += [tuple(one.sequence for one in claim.covers) for claim in claims]
        due = await self._store.next_due(self._sink)
        assert claims or due is None or due > now, "nothing polls hot"
        return claims[0].delivery if claims else None

    async def settle(self, sent: Delivery, due: datetime | None, ambiguous: bool) -> None:
        state = DeliveryState.PENDING if due else DeliveryState.DELIVERED
        await self._store.settle(Settlement(sent.id, state, NOW, due=due, ambiguous=ambiguous))

    async def crash(self, now: datetime) -> None:
        await self._store.reclaim(self._sink, now)

    async def compact(self, now: datetime) -> None:
        for part in (Part.EDIT, Part.POST):
            await self._store.compact(self._sink, now, part)

    def rows(self) -> Rows:
        query = "SELECT id, state, superseded_by, due FROM deliveries WHERE sink = ?"
        with closing(sqlite3.connect(self._path)) as database:
            return {
                key: (DeliveryState(state), by or "", datetime.fromisoformat(f"{due}+00:00"))
                for key, state, by, due in database.execute(query, [self._sink])
            }


class Story:
    """One incident, told to one sink through an outbox in which anything may go wrong."""

    def __init__(self, outbox: Outbox, kind: str, length: int, number: int) -> None:
        self.outbox, self.kind, self.now = outbox, kind, NOW
        self.sink = f"{kind}-{number}"
        edges = [Edge.DEGRADED, *[Edge.UPDATED] * (length - 1), Edge.RECOVERED]
        self.events = [
            event(number, at, edge, digest=kind == "digest") for at, edge in enumerate(edges, 1)
        ]
        self.recorded = 0
        self.in_flight: Delivery | None = None
        self.received: list[Delivery] = []
        self.told: list[tuple[datetime, Part, int]] = []
        """When, in which part and up to which event."""

    def deliveries(self) -> list[Delivery]:
        parts = PARTS[self.kind]
        return [
            delivery(one, self.sink, part, due=NOW + timedelta(seconds=one.sequence % 3 * 7))
            for one in self.events[: self.recorded]
            for part in parts.get(one.edge, parts[Edge.UPDATED])
        ]

    async def step(self, step: Step) -> None:
        match step:
            case "record":
                await self._record()
            case "record to the idle":
                claimed = await self._record(idle=self.in_flight is None)
                self.in_flight = claimed or self.in_flight
            case "replay":
                before = self.outbox.rows()
                await self.outbox.record(self.events[: self.recorded], self.deliveries(), self.now)
                assert self.outbox.rows() == before
            case "claim":
                claimed = await self.outbox.claim(self.now)
                assert claimed is None or self.in_flight is None
                self.in_flight = claimed or self.in_flight
            case "compact":
                await self.outbox.compact(self.now)
            case ("pass", int(seconds)):
                self.now += timedelta(seconds=seconds)
            case _:
                await self._end_attempt(step)

    async def _record(self, *, idle: bool = False) -> Delivery | None:
        self.recorded = min(self.recorded + 1, len(self.events))
        told = self.events[: self.recorded], self.deliveries()
        return await self.outbox.record(*told, self.now, idle=idle)

    async def _end_attempt(self, step: Step) -> None:
        if not self.in_flight:
            await self.step("claim")
        sent, self.in_flight = self.in_flight, None
        match step:
            case "delivered":
                arrived, due = True, None
            case ("retry", int(seconds), bool(arrived)):
                due = self.now + timedelta(seconds=seconds)
            case ("crash", bool(arrived)):
                due = self.now
                await self.outbox.crash(self.now)
            case _:
                raise AssertionError(step)
        if sent and arrived:
            self.received.append(sent)
            self.told.append((self.now, sent.part, sent.sequence))
        if sent and step[0] != "crash":
            await self.outbox.settle(sent, due, ambiguous=arrived and due is not None)

    async def finish(self) -> None:
        """No more faults: all is recorded, and time passes until the queue is empty."""
        await self.step("delivered")
        while self.recorded < len(self.events):
            await self.step("record")
        for _ in range(200):
            await self.step("claim")
            if self.in_flight:
                await self.step("delivered")
                continue
            waits = [due for state, _, due in self.outbox.rows().values() if state in OPEN]
            if not waits:
                return
            self.now = min(due for due in waits if due > self.now)
        raise AssertionError("never empty")

    def check(self) -> None:
        rows = self.outbox.rows()
        delivered = {key for key, (state, *_) in rows.items() if state is DeliveryState.DELIVERED}
        for key, (state, by, _) in rows.items():
            assert key in delivered or (state is DeliveryState.SUPERSEDED and by in delivered)
        assert {one.id for one in self.deliveries()} <= rows.keys()
        assert delivered <= {one.id for one in self.received}
        # Only an edit that may have arrived can be left at that: the newer one undoes it.
        assert {one.id for one in self.received if one.part is not Part.EDIT} <= delivered
        first = list({one.id: one for one in self.received}.values())
        for part in Part:
            sequences = [one.sequence for one in first if one.part is part]
            assert sequences == sorted(set(sequences))
        if self.kind == "machine":
            assert [one.sequence for one in first] == [one.sequence for one in self.events]
            return
        assert first[0].part is Part.POST
        shown = [one for one in self.received if one.part is not Part.REPLY]
        assert shown[-1].sequence == len(self.events)


async def play(story: Story, steps: list[Step]) -> list[tuple[datetime, Part, int]]:
    """Tell it to the end, and give what the sink received, and when."""
    for step in steps:
        await story.step(step)
    await story.finish()
    story.check()
    return story.told


@given(_stories)
def test_nothing_is_lost_by_the_choice(told: tuple[str, int, list[Step]]) -> None:
    """Whatever goes wrong, each delivery arrives, in order, or in one that tells the same.

    And a compaction in between changes nothing of what arrives.
    """
    kind, length, steps = told
    with_all = asyncio.run(play(Story(PureOutbox(), kind, length, 1), steps))
    plain = [step for step in steps if step != "compact"]
    assert asyncio.run(play(Story(PureOutbox(), kind, length, 1), plain)) == with_all


def test_nothing_is_lost_by_the_store(tmp_path: Path) -> None:
    """The same over SQLite, with the rows of earlier stories around."""
    path = tmp_path / "watcher.db"
    store = open_store(f"sqlite:///{path}")
    numbers = count()

    @given(_stories)
    def stories(told: tuple[str, int, list[Step]]) -> None:
        kind, length, steps = told
        both = []
        for left_out in ("", "compact"):
            number = next(numbers)
            outbox = SqlOutbox(store, path, f"{kind}-{number}")
            story = Story(outbox, kind, length, number)
            received = asyncio.run(play(story, [step for step in steps if step != left_out]))
            both.append((received, outbox.covered))
        assert both[0] == both[1], "a compaction changes nothing of what arrives"

    stories()
    asyncio.run(store.close())
