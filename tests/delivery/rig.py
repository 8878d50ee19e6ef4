"""Sinks with their dispatchers on a real store, real sockets and hand-moved time."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.deployments import ZERO
from tests.logs import captured
from watcher import audit
from watcher.core.events import ENDS, Edge, Facts, Incident, Transition, incident_id
from watcher.core.ledger import LedgerRow
from watcher.core.model import Json, Severity, Subject
from watcher.core.phases import Firing, Phase, Steady
from watcher.core.planning import Audience, Draft
from watcher.dispatcher import Dispatcher
from watcher.metrics import Metrics
from watcher.ports import Notification, Saved, Sink, Store, Traits
from watcher.recording import Recorder
from watcher.reporting import Reporting
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.view import View

NONE_SERVES = Facts(desired=3, floor=2, updated=3, ready=0, available=0)
ALL_SERVE = Facts(desired=3, floor=2, updated=3, ready=3, available=3)
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


class Recording:
    """A sink that takes everything, and keeps it."""

    def __init__(self, name: str = "other", **traits: Any) -> None:  # noqa: ANN401
        self.traits = Traits(name, **traits)
        self.sent: list[Notification] = []

    async def send(self, notification: Notification) -> Json | None:
        self.sent.append(notification)
        return {"ts": str(len(self.sent))}

    @property
    def told(self) -> list[str]:
        """`sink.failing hook`."""
        return [f"{one.event.type} {one.event.subject.name}" for one in self.sent]


class Rig:
    """What runs between a decision and the sinks; time moves only by `passes`."""

    def __init__(
        self, store: Store, clock: ManualClock, sinks: Sequence[Sink], log: io.StringIO
    ) -> None:
        self.store = store
        self.clock = clock
        self.view = View()
        self.metrics = Metrics(self.view, clock, [sink.traits.name for sink in sinks])
        self.reporting = reporting = Reporting(self.view, self.metrics)
        self.audiences = [Audience(s.traits.name, s.traits.chat, s.traits.threads) for s in sinks]
        self.dispatchers = {
            sink.traits.name: Dispatcher(
                sink, store, clock, reporting, told=self.audiences, jitter=lambda: 1.0
            )
            for sink in sinks
        }
        self._recorder = Recorder(
            "prod", store, self.audiences, reporting.recorded, reporting.store_refused,
            self.dispatchers,
        )  # fmt: skip
        self._recorder.restore(())
        self.incidents: dict[str, Incident] = {}
        """The newest of each Deployment, by name."""
        self._log = log
        audit.configure(self._log, "debug", json=True, clock=clock)

    @property
    def log(self) -> str:
        """Everything that was logged."""
        return self._log.getvalue()

    def lines(self, event: str) -> list[Json]:
        """The audit lines of one kind."""
        found = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in found if line["event"] == event]

    async def start(self) -> None:
        for dispatcher in self.dispatchers.values():
            await dispatcher.start()

    async def resumes(self, incidents: dict[str, Incident]) -> None:
        """Go on with what a former rig has opened in the same store."""
        self.incidents = incidents
        self._recorder.restore(
            [
                *await self.store.load("prod"),
                *(Saved(Subject("prod", "shop", n, n), Firing(i)) for n, i in incidents.items()),
            ]
        )

    async def opens(self, *names: str, severity: Severity = CRITICAL, storm: bool = False) -> None:
        """These Deployments go down, in one commit."""
        now = self.clock.now()
        for name in names:
            self.incidents[name] = Incident(
                incident_id(now, name), now, now, "none_available", severity,
                "0 of 3 replicas available, 2 needed", sequence=1,
                was_critical=severity is CRITICAL,
            )  # fmt: skip
        await self._commit(Edge.DEGRADED, names, storm=storm)

    async def changes(self, name: str, severity: Severity = CRITICAL, message: str = "") -> None:
        """It is down for another reason, or worse."""
        before = self.incidents[name]
        worse = before.severity is WARNING and severity is CRITICAL
        self._next(name, severity=severity, message=message or before.message)
        await self._commit(Edge.UPDATED, [name], worsened=worse)

    async def ends(self, *names: str, edge: Edge = Edge.RECOVERED) -> None:
        for name in names:
            self._next(name)
        await self._commit(edge, names)

    def _next(self, name: str, **changes: Any) -> None:  # noqa: ANN401
        before = self.incidents[name]
        self.incidents[name] = replace(before, sequence=before.sequence + 1, **changes)

    async def _commit(
        self, edge: Edge, names: Sequence[str], *, storm: bool = False, worsened: bool = False
    ) -> None:
        now = self.clock.now()
        drafts = []
        for name in names:
            incident = self.incidents[name]
            phase: Phase = Steady() if edge in ENDS else Firing(incident)
            transition = Transition(edge, now, incident, worsened=worsened)
            numbers = ALL_SERVE if edge is Edge.RECOVERED else NONE_SERVES
            subject = Subject("prod", "shop", name, f"uid-{name}")
            drafts.append(Draft(subject, phase, transition=transition, facts=numbers))
        for name, phase in zip(names, await self._recorder.commit(drafts, now, storm), strict=True):
            if isinstance(phase, Firing):
                self.incidents[name] = phase.incident

    async def passes(self, seconds: float = 0) -> None:
        """Let time pass: every dispatcher steps when it asks to, and each attempt ends."""
        until = self.clock.now() + timedelta(seconds=seconds)
        before: list[datetime | None] | None = None
        while True:
            dues = [await d.step(self.clock.now()) for d in self.dispatchers.values()]
            busy = any(d.in_flight for d in self.dispatchers.values())
            await asyncio.gather(*(d.finish() for d in self.dispatchers.values()))
            if busy or dues != before:  # an attempt may have ended since
                before = dues
                continue
            before, due = None, min(filter(None, dues), default=None)
            if due is None or due > until:
                self.clock.set(until)
                return
            self.clock.set(max(due, self.clock.now()))

    async def states(self, sink: str) -> dict[str, str]:
        """What became of each delivery of a sink: `web/1 event` → `delivered`."""
        return {
            f"{row.event.subject.name}/{row.event.sequence} {row.delivery.part}": row.delivery.state
            for row in await self.rows(sink)
        }

    async def rows(self, sink: str) -> Sequence[LedgerRow]:
        return await self.store.history(sink=sink, limit=10_000)


@asynccontextmanager
async def rig(folder: Path, *sinks: Sink, clock: ManualClock | None = None) -> AsyncIterator[Rig]:
    """Started, on the store in that folder: a second one there is a restart."""
    store = open_store(f"sqlite:///{folder / 'watcher.db'}")
    with captured() as log:
        made = Rig(store, clock or ManualClock(ZERO), sinks, log)
        await made.start()
        try:
            yield made
        finally:
            await store.close()
