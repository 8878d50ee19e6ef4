"""A timeline through the real observer and heartbeat, on virtual time: what would have been sent, and when."""

import tempfile
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from watcher.core.delivery import DeliveryState
from watcher.core.events import Edge, Event, Resolution
from watcher.core.model import DeploymentSnapshot, Json, Subject
from watcher.core.namespaces import NOTHING
from watcher.core.planning import Audience
from watcher.core.words import rfc3339
from watcher.errors import StoreError, Unreachable
from watcher.follower import Follower
from watcher.ports import (
    Applied,
    Broken,
    Deleted,
    Listed,
    Looked,
    Opened,
    Probe,
    Record,
    Stream,
    WatchEvent,
)
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.timeline import CLUSTER, Step, Timeline, read
from watcher.view import View

_DOWN: Final = Unreachable("the API server does not answer")


async def replay(lines: Iterable[str], place: str = "timeline") -> AsyncGenerator[Json, None]:
    """Yield what would have been sent, in order, as the lines that `watcher replay` prints.

    Raises ReplayError before anything is run, if any line cannot be used.
    """
    timeline = read(lines, place)
    if not timeline.steps:
        return
    with tempfile.TemporaryDirectory(prefix="watcher-replay-") as folder:
        stage = Stage(timeline, f"sqlite:///{Path(folder) / 'replay.db'}")
        async for event in stage.play():
            yield _printed(event, timeline.base)


class Stage:
    """The world of a timeline: a server, its network, and a process that may be restarted.

    To the process it is the cluster, which is only asked: whatever happens is shown step by step.
    """

    name = CLUSTER
    scopes = ("",)
    excluded = NOTHING
    selective = False

    def __init__(self, timeline: Timeline, url: str) -> None:
        self._timeline = timeline
        self._clock = ManualClock(timeline.steps[0].at)
        self._store = open_store(url)
        self._objects: dict[tuple[str, str], DeploymentSnapshot] = {}
        """By name: a server has one of each, whatever the uid."""
        self._up = True
        self._down_at = timeline.steps[0].at
        self._follower: Follower | None = None
        self._back_at: datetime | None = None
        self._sent: list[Event] = []
        self._stream = Stream()

    async def play(self) -> AsyncIterator[Event]:
        """Run the timeline, yielding each event that some sink would have been sent."""
        interval = self._timeline.heartbeat.interval
        steps = deque(self._timeline.steps)
        probe_at, ended = self._clock.now(), False
        try:
            await self._start()
            while not ended:
                now = self._next(probe_at, steps[0].at if steps else None)
                if now is None:
                    return
                self._clock.set(now)
                probe_at += max(0, -((probe_at - now) // interval)) * interval
                await self._pass_time(now)
                while steps and steps[0].at <= now:
                    ended = ended or steps[0].type == "END"
                    await self._take(steps.popleft())
                if probe_at <= now:
                    probe_at += interval
                    if self._follower is not None:
                        await self._follower.step(now, probe=Probe(None if self._up else _DOWN))
                for event in self._sent:
                    yield event
                self._sent.clear()
        finally:
            await self._store.close()

    def _next(self, probe_at: datetime, step_at: datetime | None) -> datetime | None:
        """The next instant at which anything happens; None once nothing is due any more."""
        due = self._follower.next_due() if self._follower is not None else self._back_at
        waits = (step_at, due, None if self._at_rest() else probe_at)
        return min(filter(None, waits), default=None)

    def _at_rest(self) -> bool:
        """Whether further probes would only repeat what is known."""
        if self._follower is None:
            return False
        view = self._follower.view
        return view.reason == "connected" if self._up else view.outage is not None

    async def _pass_time(self, now: datetime) -> None:
        if self._follower is not None:
            await self._follower.step(now)
        elif self._back_at is not None and self._back_at <= now:
            await self._start()

    async def _start(self) -> None:
        """Start the process: it takes up its store and lists."""
        self._back_at = None
        self._follower = Follower(
            self, View(), self._store, self._clock, (Audience("replay"),), self._timeline.health,
            self._timeline.heartbeat, self,
        )  # fmt: skip
        await self._follower.restore()
        news = self._whole() if self._up else [Broken("", _DOWN)]
        await self._follower.step(self._clock.now(), news)

    async def _take(self, step: Step) -> None:
        match step.type:
            case "API_DOWN" if self._up:
                await self._show((Broken("", _DOWN),))
                self._up, self._down_at = False, step.at
            case "API_UP" if not self._up:
                self._up = True
                await self._show(self._whole())
            case "RESTART":
                await self._restart(step)
            case _:
                await self._show(self._change(step))

    def _change(self, step: Step) -> Sequence[WatchEvent]:
        """What happens to the server's state; the process sees it only if it can."""
        match step.type:
            case "LIST":
                self._objects = {_name(s): s for s in step.snapshots}
                return self._whole()
            case "ADDED" | "MODIFIED":
                self._objects.update({_name(s): s for s in step.snapshots})
                return [Applied("", s) for s in step.snapshots]
            case "DELETED":
                for s in step.snapshots:
                    self._objects.pop(_name(s), None)
                return [Deleted("", s) for s in step.snapshots]
            case _:
                return ()

    async def _restart(self, step: Step) -> None:
        if self._follower is not None:
            await self._follower.stop(step.at)
            self._follower = None
        self._back_at = step.at + step.down
        if not step.down:
            await self._start()

    async def _show(self, events: Sequence[WatchEvent]) -> None:
        if self._follower is not None and self._up:
            await self._follower.step(self._clock.now(), events)

    def _whole(self) -> Sequence[WatchEvent]:
        return [Listed("", tuple(self._objects.values())), Opened("")]

    # What the process asks of a cluster

    def stream(self, scope: str) -> Stream:
        """While the server is up its stream is never silent."""
        self._stream.last_byte_at = self._clock.now() if self._up else self._down_at
        return self._stream

    async def look(self, subjects: Sequence[Subject]) -> Looked:
        """What the server has."""
        found = self._objects
        return {s.uid: found.get((s.namespace, s.name), Resolution.DELETED) for s in subjects}

    async def run(self) -> None:
        """There is nothing to run."""

    async def events(self) -> Sequence[WatchEvent]:
        """Nothing comes by itself."""
        return ()

    async def probe(self) -> Probe:
        """What a probe finds is shown, too."""
        return Probe()

    async def close(self) -> None:
        """There is nothing to give back."""

    # What the follower reports

    def recorded(self, record: Record) -> None:
        """Keep what at least one sink would have been sent."""
        kept = {d.event for d in record.deliveries if d.state is not DeliveryState.SUPPRESSED}
        self._sent += [event for event in record.events if event.id in kept]

    def store_refused(self, error: StoreError) -> None:
        """A replay without its store shows nothing."""
        raise error

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None:
        """Not asked for."""

    def probed(self, cluster: str, probe: Probe) -> None:
        """Not asked for."""


def _name(s: DeploymentSnapshot) -> tuple[str, str]:
    return s.namespace, s.name or s.uid


def _printed(event: Event, base: datetime) -> Json:
    s = event.subject
    named = {"namespace": s.namespace, "deployment": s.name}
    return {
        "at": (event.at - base).total_seconds(), "event": event.type.partition(".")[2],
        **({"cluster": s.cluster} if s.is_cluster else named),
        "reason": event.reason, "severity": event.severity, "since": rfc3339(event.since),
        "incident": event.incident,
        **({"resolution": event.resolution} if event.edge is Edge.CLOSED else {}),
    }  # fmt: skip
