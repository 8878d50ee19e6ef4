"""A sink that cannot deliver, or a queue that fills, is an incident of its own, told by others."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from watcher.core.events import Edge, Incident, Resolution, Transition, incident_id
from watcher.core.model import Severity, Subject
from watcher.core.phases import Firing, Phase, Steady
from watcher.core.planning import Audience, Draft
from watcher.ports import Saved, Store
from watcher.recording import Recorder
from watcher.reporting import Reporting

_SINK: Final = ("sink.failing", "sink.restored")
_QUEUE: Final = ("queue.filling", "queue.restored")


class Trouble:
    """What one sink is in, if any; without a name, the queue of all of them.

    Every method is a step that its caller awaits in turn. All of them raise StoreError, and then nothing has changed.
    """

    def __init__(
        self, sink: str, store: Store, others: Sequence[Audience], reporting: Reporting
    ) -> None:
        self._subject = Subject("", name=sink, uid=f"sink/{sink}" if sink else "queue")
        self._begun, self._over = _SINK if sink else _QUEUE
        self._all, self._others = others, list[Audience]()
        self._recorder = Recorder("", store, self._others, reporting.recorded, lambda _: None)
        self._phase: Phase = Steady()
        self._turn = asyncio.Lock()
        """Attempts that fail together must not open an incident each."""

    def restore(self, saved: Iterable[Saved]) -> None:
        """Take up what a former process left."""
        self._recorder.restore(())
        self._phase = next((row.phase for row in saved if row.subject == self._subject), Steady())

    async def begins(
        self, why: str, since: datetime, now: datetime, *, critical: bool = False
    ) -> None:
        """Tell once that it fails, and once more when that is critical: something is lost, or full."""
        severity = Severity.CRITICAL if critical else Severity.WARNING
        edge = Edge.DEGRADED
        async with self._turn:
            if isinstance(self._phase, Firing):
                incident = self._phase.incident
                if incident.severity is Severity.CRITICAL or not critical:
                    return
                edge, sequence = Edge.UPDATED, incident.sequence + 1
                incident = replace(incident, severity=severity, message=why, sequence=sequence)
            else:
                name = incident_id(now, self._subject.uid)
                incident = Incident(name, now, since, self._begun, severity, why, sequence=1)
            incident = replace(incident, was_critical=critical)
            told = Transition(edge, now, incident, worsened=edge is Edge.UPDATED)
            await self._commit(Firing(incident), told, now)

    async def ends(self, now: datetime, resolution: Resolution | None = None) -> None:
        """Tell that it works again, or for which other reason that is over."""
        async with self._turn:
            if isinstance(self._phase, Firing):
                incident = self._phase.incident
                incident = replace(incident, sequence=incident.sequence + 1, reason=self._over)
                edge = Edge.CLOSED if resolution else Edge.RECOVERED
                await self._commit(Steady(), Transition(edge, now, incident, resolution), now)

    async def _commit(self, phase: Phase, transition: Transition, now: datetime) -> None:
        over = isinstance(phase, Steady)
        draft = Draft(self._subject, phase, transition=transition, forget=over)
        self._others[:] = [each for each in self._all if each.name != self._subject.name]
        (self._phase,) = await self._recorder.commit([draft], now)
