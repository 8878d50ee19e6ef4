"""A follower on a scripted cluster, a real store and hand-moved time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from tests.deployments import ZERO
from watcher.core.events import Event
from watcher.core.model import Subject
from watcher.core.namespaces import NOTHING
from watcher.core.planning import Audience
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import StoreError
from watcher.follower import Follower
from watcher.ports import Claim, Looked, Probe, Record, Store, Stream, WatchEvent
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.view import View


class Followed:
    """One cluster as the script wants it, and everything that is recorded of it."""

    name = "prod"
    scopes = ("",)
    excluded = NOTHING
    selective = False

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.follower: Follower
        self.store: Store
        self.views: View
        self.restart: Callable[[], Awaitable[None]]
        """Follow it anew, as another process on the same store."""
        self.looks: list[list[str]] = []
        """What was asked for, beside the watch."""
        self.there: Looked = {}
        """What is answered then."""
        self.recorded_events: list[Event] = []
        self.last_byte: datetime | None = None
        """When the stream fell silent; None while it speaks all the time."""
        self.refusals = 0
        """So many commits the store is yet to refuse."""
        self.commits = 0
        """How many it has taken."""

    async def at(
        self, seconds: float, events: Sequence[WatchEvent] = (), probe: Probe | None = None
    ) -> None:
        """Let time pass, with a step at each deadline, and then this happen."""
        until = ZERO + timedelta(seconds=seconds)
        while (due := self.follower.next_due()) is not None and due <= until:
            self.clock.set(due)
            await self.follower.step(due)
        self.clock.set(until)
        await self.follower.step(until, events, probe)

    def stream(self, scope: str) -> Stream:
        return Stream(last_byte_at=self.last_byte or self.clock.now())

    async def run(self) -> None: ...

    async def events(self) -> Sequence[WatchEvent]:
        return ()

    async def look(self, subjects: Sequence[Subject]) -> Looked:
        self.looks.append([subject.name for subject in subjects])
        return self.there

    async def probe(self) -> Probe:
        return Probe()

    async def close(self) -> None: ...

    def recorded(self, record: Record) -> None:
        self.recorded_events += record.events

    def store_refused(self, error: StoreError) -> None:
        if error is not _REFUSED:
            raise error

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None: ...

    def probed(self, cluster: str, probe: Probe) -> None: ...


_REFUSED = StoreError("the disk is full")
USUAL = HealthPolicy()
CHAT = (Audience("chat", chat=True, threads=True),)


@asynccontextmanager
async def followed(
    folder: Path,
    audiences: Sequence[Audience] = CHAT,
    health: HealthPolicy = USUAL,
    selective: bool = False,
) -> AsyncIterator[Followed]:
    """Follow it from second 0 on, for one chat sink."""
    clock = ManualClock(ZERO)
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    cluster = Followed(clock)
    cluster.selective = selective
    cluster.store = store
    commit = store.record

    async def record(
        record: Record, at: datetime, idle: Collection[str] = ()
    ) -> Mapping[str, Claim]:
        if cluster.refusals:
            cluster.refusals -= 1
            raise _REFUSED
        claims = await commit(record, at, idle)
        cluster.commits += 1
        return claims

    store.record = record  # type: ignore[method-assign]  # a disk that is full

    async def start() -> None:
        cluster.views = View()
        cluster.follower = Follower(
            cluster, cluster.views, store, clock, audiences, health, ClusterPolicy(), cluster
        )
        await cluster.follower.restore()

    cluster.restart = start
    await start()
    try:
        yield cluster
    finally:
        await store.close()
