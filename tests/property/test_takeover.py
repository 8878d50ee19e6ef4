"""Another replica takes over, at whatever moment: what is recorded is what one that never ended records."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.acceptance.following import Followed
from tests.deployments import ZERO, web
from watcher.cluster.decode import snapshot_from
from watcher.core.events import Event
from watcher.core.model import DeploymentSnapshot
from watcher.core.planning import Audience
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import Unreachable
from watcher.follower import Follower
from watcher.ports import Applied, Broken, Deleted, Listed, Opened, Probe, WatchEvent
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.view import View

DOWN = Unreachable("connection refused")
NAMES = "abc"
AUDIENCES = [Audience("chat", chat=True, threads=True), Audience("hook")]

CHANGE = st.tuples(st.sampled_from(NAMES), st.sampled_from([0, 1, 3, "gone"]))
STEP = st.tuples(
    st.integers(1, 90),
    st.one_of(CHANGE, st.sampled_from(["relist", "down", "up", "wait"])),
    st.sampled_from(["", "", "stop", "kill"]),
)
"""How much later, what, and how the writer ends after it, if it does."""


def gist(event: Event) -> tuple[object, ...]:
    """Without what a replica cannot know that took over while the cluster was out of sight: what
    changed meanwhile, whether it was seen, and the numbers of what was gone by the end of it.

    An incident is named by subject and opening: its id may count what came to nothing before.
    """
    e = event
    return e.subject.name, e.opened_at, e.sequence, e.type, e.at, e.since, e.reason, e.severity


class Theatre:
    """Two replicas that see the same; one of them writes."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(ZERO)
        self.store = open_store(f"sqlite:///{folder / 'store.db'}")
        self.seen = [Followed(self.clock), Followed(self.clock)]
        self.replicas = [
            Follower(
                one, View(), self.store, self.clock, AUDIENCES, HealthPolicy(), ClusterPolicy(), one
            )
            for one in self.seen
        ]
        self.writer = 0
        self.objects: dict[str, DeploymentSnapshot] = {}
        self.up = True
        self._version = 0
        for name in NAMES:
            self.change(name, 3)

    @property
    def events(self) -> Sequence[tuple[object, ...]]:
        both = [event for one in self.seen for event in one.recorded_events]
        return sorted(map(gist, both), key=str)

    def change(self, name: str, to: int | str) -> list[WatchEvent]:
        if to == "gone":
            gone = self.objects.pop(name, None)
            return [Deleted("", gone)] if gone else []
        self._version += 1
        obj = web(int(to), name=name)
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[name] = snapshot_from(obj, "prod")
        return [Applied("", self.objects[name])]

    def happens(self, what: object) -> list[WatchEvent]:
        match what:
            case (str(name), int() | str() as to):
                news = self.change(name, to)
                return news if self.up else []
            case "down" if self.up:
                self.up = False
                for one in self.seen:
                    one.last_byte = self.clock.now()
                return [Broken("", DOWN)]
            case "up" if not self.up:
                self.up = True
                for one in self.seen:
                    one.last_byte = None
                return self.whole()
            case "relist" if self.up:
                return self.whole()
            case _:
                return []

    def whole(self) -> list[WatchEvent]:
        return [Listed("", tuple(self.objects.values())), Opened("")]

    async def step(self, seconds: float, events: Sequence[WatchEvent] = ()) -> None:
        """Both live through that time, with a probe at its end."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while (due := min(filter(None, self.dues()), default=until)) < until:
            self.clock.set(max(due, self.clock.now()))
            for replica in self.replicas:
                await replica.step(self.clock.now())
        self.clock.set(until)
        for replica in self.replicas:
            await replica.step(until, events, Probe(None if self.up else DOWN))

    def dues(self) -> list[datetime | None]:
        return [replica.next_due() for replica in self.replicas]

    async def switch(self, how: str) -> None:
        if how == "stop":
            await self.replicas[self.writer].stop(self.clock.now())
        self.replicas[self.writer]._recorder.writes = False  # killed, or refused by the store
        self.writer = 1 - self.writer
        await self.replicas[self.writer].restore()


async def played(
    steps: Sequence[tuple[int, object, str]], switching: bool
) -> Sequence[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        theatre = Theatre(Path(folder))
        await theatre.replicas[0].restore()
        await theatre.step(0, theatre.whole())
        await theatre.step(0)
        for seconds, what, ending in steps:
            await theatre.step(seconds)
            await theatre.step(0, theatre.happens(what))
            if ending and switching:
                await theatre.switch(ending)
        await theatre.step(0, theatre.happens("up"))
        for _ in range(8):
            await theatre.step(15)
        await theatre.store.close()
        return theatre.events


@settings(max_examples=settings().max_examples // 4)
@given(st.lists(STEP, max_size=10))
@example([(1, "down", "stop"), (1, ("a", 0), "")])
@example([(1, ("a", "gone"), "stop"), (1, ("a", 0), "")])
def test_a_takeover_changes_nothing(steps: Sequence[tuple[int, object, str]]) -> None:
    """Nothing is told anew, nothing is left out, and everything is dated as if nobody had ended."""
    assert asyncio.run(played(steps, True)) == asyncio.run(played(steps, False))
