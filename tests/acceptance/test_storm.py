"""How many openings within a minute make a storm, through a real follower and store."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.deployments import ZERO, web
from watcher.cluster.decode import snapshot_from
from watcher.core.model import Event
from watcher.core.planning import Audience
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import StoreError
from watcher.follower import Follower
from watcher.ports import Applied, Listed, Opened, Probe, Record, WatchEvent
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.view import View


class Scripted:
    """A cluster in plain sight, and everything that is recorded of it."""

    name = "prod"
    scopes = ("",)

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.told: list[Event] = []

    def last_byte_at(self, scope: str) -> datetime:
        return self._clock.now()

    def recorded(self, record: Record) -> None:
        self.told += record.events

    def store_refused(self, error: StoreError) -> None:
        raise error

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None: ...

    def probed(self, cluster: str, probe: Probe) -> None: ...

    async def run(self) -> None: ...

    async def events(self) -> Sequence[WatchEvent]:
        return ()

    async def probe(self) -> Probe:
        return Probe()

    async def close(self) -> None: ...


async def openings(folder: Path, starts: Sequence[float]) -> list[tuple[bool, int]]:
    """Let one Deployment degrade at each of `starts`; what was opened, a digest with its members."""
    clock = ManualClock(ZERO)
    store = open_store(f"sqlite:///{folder / 'store.db'}", clock)
    cluster = Scripted(clock)
    audience = (Audience("chat", chat=True, threads=True),)
    follower = Follower(
        cluster, View(), store, clock, audience, HealthPolicy(), ClusterPolicy(), cluster
    )
    await follower.restore()
    names = [f"web-{n}" for n in range(len(starts))]
    healthy = tuple(snapshot_from(web(name=name), "prod") for name in names)
    await follower.step(ZERO, [Listed("", healthy), Opened("")])
    for name, start in zip(names, starts, strict=True):
        await _wait(follower, clock, start)
        await follower.step(clock.now(), [Applied("", snapshot_from(web(1, name=name), "prod"))])
    await _wait(follower, clock, starts[-1] + 60)
    await store.close()
    digests = [e for e in cluster.told if e.digest]
    grouped = {member for e in digests for member in e.members}
    alone = [e for e in cluster.told if not e.digest and e.incident not in grouped]
    return [(False, 1)] * len(alone) + ([(True, len(grouped))] if grouped else [])


async def _wait(follower: Follower, clock: ManualClock, seconds: float) -> None:
    until = ZERO + timedelta(seconds=seconds)
    while (due := follower.next_due()) is not None and due <= until:
        clock.set(due)
        await follower.step(due)
    clock.set(until)


@pytest.mark.parametrize(
    ("starts", "digests"),
    [
        ([10] * 10, [(False, 1)] * 10),
        ([10] * 11, [(True, 11)]),
        ([10] * 6 + [40] * 5, [(True, 11)]),
        ([10] * 6 + [130] * 5, [(False, 1)] * 11),
        ([10 + 30 * n for n in range(14)], [(False, 1)] * 14),
    ],
    ids=["ten", "eleven", "eleven within a minute", "eleven within three", "one each half minute"],
)
async def test_storm(tmp_path, starts, digests):
    """More than ten openings within a minute are one digest, ten are ten messages."""
    assert await openings(tmp_path, starts) == digests
