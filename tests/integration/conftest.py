"""A watcher's cluster side on a fake API server, with time that never has to be waited for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import pytest

from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import Access, Auth, Endpoint, fixed
from watcher.cluster.transport import Timings
from watcher.core.model import DeploymentSnapshot
from watcher.ports import Applied, Clock, Deleted, Listed, Opened, WatchEvent
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment

E = TypeVar("E", bound=WatchEvent)
FAST = Timings(quiet=0.02, catch_up=0.1)


class JumpingClock:
    """Whoever waits is there at once, and time with it; what was waited is on record."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self._now = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def wall(self) -> datetime:
        return self._now

    def forward(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), self._now + timedelta(seconds=seconds))

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        if until is None:
            return await event.wait()
        assert len(self.waits) < 1000, "this would go on for ever"
        wait = max((until - self._now).total_seconds(), 0)
        self.waits.append(wait)
        self.forward(wait)
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, waits for nothing
        return event.is_set()


class Watched:
    """A cluster and all that came from it."""

    def __init__(self, cluster: KubeCluster) -> None:
        self.cluster = cluster
        self.seen: list[WatchEvent] = []
        self._read = 0

    async def until(self, kind: type[E], holds: Callable[[E], bool] = lambda _: True) -> E:
        """The next event of a kind for which this holds."""
        while True:
            while self._read < len(self.seen):
                event = self.seen[self._read]
                self._read += 1
                if isinstance(event, kind) and holds(event):
                    return event
            self.seen += await self.cluster.events()

    async def applied(self, name: str) -> DeploymentSnapshot:
        """The next thing seen of a Deployment."""
        return (await self.until(Applied, lambda e: e.snapshot.name == name)).snapshot

    def all(self, kind: type[E]) -> list[E]:
        """Everything of a kind so far."""
        return [event for event in self.seen if isinstance(event, kind)]

    @property
    def state(self) -> dict[str, DeploymentSnapshot]:
        """What somebody who believes these events knows, by name."""
        known: dict[str, DeploymentSnapshot] = {}
        for event in self.seen:
            match event:
                case Listed(snapshots=snapshots):
                    known = {s.uid: s for s in snapshots}
                case Applied(snapshot=s):
                    known[s.uid] = s
                case Deleted(snapshot=s):
                    known.pop(s.uid, None)
                case _:
                    pass
        return {s.name: s for s in known.values()}


@pytest.fixture
def clock():
    return JumpingClock()


@pytest.fixture
async def server(clock):
    """An API server with three Deployments, all well."""
    made = FakeApiServer(clock=clock)
    await made.start()
    for name in "abc":
        made.apply(deployment("shop", name))
    yield made
    await made.stop()


@pytest.fixture
async def watch(server, clock):
    """Makes a running cluster that is connected to the server."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Watched:  # noqa: ANN401
            return await stack.enter_async_context(watching(server, clock, **options))

        yield start


@asynccontextmanager
async def watching(
    server: FakeApiServer,
    clock: Clock,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Watched]:
    """A cluster that runs until the block ends."""
    auth = options.pop("auth", None) or access_to(server)
    timings = msgspec.structs.replace(FAST, **options.pop("timings", {}))
    options.setdefault("uniform", lambda low, high: high)
    cluster = KubeCluster("prod", auth, clock, timings=timings, **options)
    running = asyncio.create_task(cluster.run())
    try:
        yield Watched(cluster)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await cluster.close()


def access_to(server: FakeApiServer, header: str = "") -> Auth:
    return Auth(lambda _: Access(Endpoint(server.url), fixed(header)))


async def opened(watched: Watched) -> Watched:
    """The same once its stream is open."""
    await watched.until(Opened)
    return watched


def asked(server: FakeApiServer, *verbs: str) -> list[Any]:
    """The requests of these kinds so far."""
    return [seen for seen in server.requests if seen.verb in verbs]


def spacing(server: FakeApiServer, *verbs: str) -> list[float]:
    """Seconds between them."""
    times = [seen.at for seen in asked(server, *verbs)]
    return [round((b - a).total_seconds(), 3) for a, b in pairwise(times)]
