"""A store that fails is told directly, once and unrecorded: there is nowhere to record it."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from watcher.config.secrets import redact
from watcher.core.compose import compose
from watcher.core.model import Edge, Event, Part, Severity, Subject, delivery_id, incident_id
from watcher.errors import SinkError
from watcher.ports import Clock, Notification, Sink
from watcher.view import View

_HOLD: Final = timedelta(seconds=10)
"""A database that is restarted is back by then."""
_LOOK_SECONDS: Final = 1.0
_SEND_SECONDS: Final = 30.0


class StoreAlarm:
    """Tells each sink when the store has failed for ten seconds; the one that was the writer tells."""

    def __init__(self, view: View, sinks: Sequence[Sink], clock: Clock) -> None:
        self._view = view
        self._sinks = sinks
        self._clock = clock

    async def run(self) -> None:
        """Look every second; never ends."""
        ours, since, told = True, None, False  # nobody knows of another before the store says so
        while True:
            error, now = self._view.store_error, self._clock.now()
            if error is None:
                ours, since, told = self._view.leading, None, False
            elif since is None:
                since = now
            elif ours and not told and now - since >= _HOLD:
                told = True
                await asyncio.gather(*(self._tell(sink, error, since) for sink in self._sinks))
            await self._clock.sleep(_LOOK_SECONDS)

    async def _tell(self, sink: Sink, error: str, since: datetime) -> None:
        what = f"This process can record nothing, and tells nothing else before it can: {redact(error)}"
        notification = notice(sink, Subject(""), "store.failing", Severity.CRITICAL, what, since)
        with contextlib.suppress(SinkError, TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS):
                await sink.send(notification)


def notice(
    sink: Sink, subject: Subject, reason: str, severity: Severity, message: str, at: datetime
) -> Notification:
    """What the watcher says of itself to one sink, without a record of it."""
    name, incident = sink.traits.name, incident_id(at, reason, sink.traits.name)
    event = Event(incident, 1, Edge.DEGRADED, subject, at, at, at, reason, severity, message)
    part = Part.POST if sink.traits.chat else Part.EVENT
    composed = compose(event, latest=event, part=part, now=at)
    return Notification(delivery_id(event.id, name, part), part, composed, event)
