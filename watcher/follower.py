"""One cluster followed: its deadlines, watch events and probes, one step at a time and in that order."""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from watcher.core.model import EPOCH
from watcher.core.planning import Audience
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import Deposed, StoreError
from watcher.heartbeat import Heartbeat
from watcher.observer import Observer
from watcher.ports import (
    Broken,
    Clock,
    Cluster,
    Listed,
    Opened,
    Probe,
    Record,
    Saved,
    Store,
    WatchEvent,
)
from watcher.recording import Courier, Recorder
from watcher.view import ClusterView, View

_SLEPT = timedelta(minutes=1)
"""Beyond two beats: a probe, its credentials and the store may take as long."""
_SEEN_EVERY = timedelta(minutes=1)
_RETRY = 1.0
_APART = timedelta(seconds=1)
"""Streams that come and go make no more probes than this."""


class Reporter(Protocol):
    """What the loops around a cluster tell, after the fact."""

    def recorded(self, record: Record) -> None:
        """A decision was committed."""

    def store_refused(self, error: StoreError) -> None:
        """The store did not take one."""

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None:
        """The watch delivered this."""

    def probed(self, cluster: str, probe: Probe) -> None:
        """A heartbeat's answer came."""


@dataclass(eq=False)
class Follower:
    """The loops around one cluster's observer and heartbeat."""

    cluster: Cluster
    views: View
    store: Store
    clock: Clock
    audiences: Sequence[Audience]
    health: HealthPolicy
    reach: ClusterPolicy
    reporter: Reporter
    couriers: Mapping[str, Courier] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()
        """Set when a probe need not wait for the next beat."""
        self._seen_at = EPOCH
        self._stepped_at = self.clock.now()
        self._begin()

    def _begin(self) -> None:
        """Know nothing, and record nothing."""
        cluster, reporter, now = self.cluster, self.reporter, self.clock.now()
        silent_for, scopes = self.reach.stream_silent_for, cluster.scopes
        self.view = view = ClusterView(cluster.name, scopes, cluster.stream, silent_for, now)
        view.excluded = cluster.excluded
        self.views.clusters[cluster.name] = view
        self._recorder = recorder = Recorder(
            cluster.name, self.store, self.audiences, reporter.recorded, reporter.store_refused,
            self.couriers,
        )  # fmt: skip
        self.observer = Observer(view, recorder, self.health, cluster.look, cluster.selective)
        self.heartbeat = Heartbeat(view, recorder, self.reach, now, self.observer.meanwhile)

    async def restore(self) -> None:
        """Record from now on: as after a restart, from what the store knows and what is in view.

        Waits for the store. Raises Deposed.
        """
        saved, seen_at = await self._load()
        async with self._turn:
            shown, former = self.observer.roster.shown(), self.heartbeat
            self._begin()
            self._recorder.restore(saved)
            self.observer.restore(saved, seen_at)
            self.heartbeat.restore(saved, former, seen_at)
            if shown:
                await self.step(self.clock.now(), shown)

    def obey(self, health: HealthPolicy, reach: ClusterPolicy) -> None:
        """Judge by these from now on; it is no step, and asks for one where needed."""
        self._stepped_at = self.clock.now()  # by the beat up to now that was no sleep
        if reach.interval != self.reach.interval:
            self._asked.set()
        self.health, self.reach = health, reach
        self.heartbeat.policy, self.view.silent_for = reach, reach.stream_silent_for
        self.observer.policy = health
        self._changed.set()

    async def _load(self) -> tuple[list[Saved], datetime | None]:
        while True:
            try:
                saved = list(await self.store.load(self.cluster.name))
                return saved, await self.store.seen_at(self.cluster.name)
            except StoreError as error:
                self.reporter.store_refused(error)
                if isinstance(error, Deposed):
                    raise
                await self.clock.sleep(_RETRY)

    async def step(
        self, now: datetime, events: Sequence[WatchEvent] = (), probe: Probe | None = None
    ) -> None:
        """At one instant: what is due first, then what the watch shows, then the probe."""
        await self.observer.expire_due(now)
        await self.heartbeat.expire_due(now)
        if self.observer.sight.frozen:
            await self.observer.thaw(now)
        if events:
            await self.observer.apply(events, now)
            await self.heartbeat.look(now)
            await self.observer.thaw(now)
        if probe is not None:
            await self.heartbeat.probed(probe, now)
            await self.observer.thaw(now)
        await self.observer.expire_due(now)  # sight may just have returned
        self._changed.set()

    def store_restored(self) -> None:
        """Try now what the store has refused."""
        self.observer.retry_at(self.clock.now())
        self._changed.set()

    def next_due(self) -> datetime | None:
        """When time alone calls for a step."""
        waits = (self.observer.next_due(), self.heartbeat.next_due())
        return min(filter(None, waits), default=None)

    async def watch(self) -> None:
        """Step with every batch that the watch delivers; never ends."""
        while True:
            events = await self.cluster.events()
            if any(self._tells_of_the_server(event) for event in events):
                self._asked.set()
            await self._step_now(events)
            self.reporter.watched(self.cluster.name, events)

    async def probe(self) -> None:
        """Step with a probe at each beat, and when a stream is lost or comes back; never ends.

        In between it only looks whether the server is back: a look that fails is no evidence.
        """
        beat = self.clock.now()
        while True:
            began = self.clock.now()
            self._asked.clear()
            probe = await self.cluster.probe()
            if began >= beat or probe.error is None:
                self.reporter.probed(self.cluster.name, probe)
                now = await self._step_now(probe=probe)
                if self._recorder.writes and now - self._seen_at >= _SEEN_EVERY:
                    await self._mark_seen(now)
                # Jittered, so that a fleet does not beat in time.
                beat = now + self.heartbeat.policy.interval * random.uniform(0.9, 1.1)  # noqa: S311
            look = self.heartbeat.looks_again_at(probe, self.clock.now()) or beat
            if await self.clock.wait(self._asked, min(beat, look)):
                beat = min(beat, max(began + _APART, self.clock.now()))
                await self.clock.wait(asyncio.Event(), beat)

    def _tells_of_the_server(self, event: WatchEvent) -> bool:
        """Whether it may have just gone, or be back."""
        if isinstance(event, Broken):
            return event.error is not None and self.view.scopes[event.scope].open
        return isinstance(event, Listed | Opened) and self.view.incident is not None

    async def keep_time(self) -> None:
        """Step at each deadline; never ends."""
        while True:
            self._changed.clear()
            if await self.clock.wait(self._changed, self.next_due()):
                continue
            await self._step_now()

    async def _step_now(
        self, events: Sequence[WatchEvent] = (), probe: Probe | None = None
    ) -> datetime:
        """Step in turn. So long without one, since every beat makes one, is sleep (W38)."""
        async with self._turn:
            now = self.clock.now()
            if now - self._stepped_at > 2 * self.reach.interval + _SLEPT:
                self.observer.sight.slept(self._stepped_at)
            self._stepped_at = now
            await self.step(now, events, probe)
        return now

    async def stop(self, now: datetime) -> None:
        """Record nothing any more; keep until when the cluster was in sight: after it is blind time."""
        writes, self._recorder.writes = self._recorder.writes, False
        if writes:
            await self._mark_seen(now)

    async def _mark_seen(self, now: datetime) -> None:
        self._seen_at = now
        if (seen_at := self.observer.last_seen(now)) is not None:
            with contextlib.suppress(StoreError):
                await self.store.mark_seen(self.cluster.name, seen_at)
