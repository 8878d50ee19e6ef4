"""A store that fails is told directly, and so is its end: there is nowhere to record either."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from watcher.attempt import notice
from watcher.config.secrets import redact
from watcher.core.events import Edge, Event, incident_id
from watcher.core.model import Severity, Subject
from watcher.errors import SinkError
from watcher.ports import Clock, Sink
from watcher.view import View

_HOLD: Final = timedelta(seconds=10)
"""A database that is restarted is back by then, and one that has worked for so long is mended."""
_LOOK_SECONDS: Final = 2.0
_SEND_SECONDS: Final = 30.0
_END_AFTER: Final = (0.0, 60.0, 300.0, 1800.0)
"""Waits before the attempts at an end: an alert that it does not reach stays open for ever."""


class StoreAlarm:
    """Tells each sink when the store has failed for ten seconds, and when it works again.

    The process that was the writer tells.
    """

    def __init__(self, view: View, sinks: Sequence[Sink], clock: Clock) -> None:
        self._view = view
        self._sinks = sinks
        self._clock = clock

    async def run(self) -> None:
        """Look every two seconds; never ends."""
        async with asyncio.TaskGroup() as ends:
            await self._look(ends)

    async def _look(self, ends: asyncio.TaskGroup) -> None:
        ours, since, worked = True, None, None  # nobody knows of another before the store says so
        told: Event | None = None
        sinks: Sequence[Sink] = ()
        heard: Sequence[bool] = ()
        while True:
            error, now = self._view.store_error, self._clock.now()
            if error is not None:
                since, worked = since or now, None
                if ours and told is None and now - since >= _HOLD:
                    told, sinks = _failing(error, since, now), tuple(self._sinks)
                    heard = await asyncio.gather(*(self._tell(sink, told) for sink in sinks))
            else:
                ours, worked = self._view.leading, worked or now
                if told is None:
                    since = None
                elif now - worked >= _HOLD:
                    end = _restored(told, worked)
                    for sink, took in zip(sinks, heard, strict=True):
                        ends.create_task(self._end(sink, end, [told] if took else []))
                    since = told = None
            await self._clock.sleep(_LOOK_SECONDS)

    async def _end(self, sink: Sink, event: Event, told: Sequence[Event]) -> None:
        for wait in _END_AFTER:
            await self._clock.sleep(wait)
            if await self._tell(sink, event, told):
                return

    async def _tell(self, sink: Sink, event: Event, told: Sequence[Event] = ()) -> bool:
        """Whether it took it; `told` is what it has taken before."""
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await sink.send(notice(sink, event, self._clock.wall(), told))
        except (SinkError, TimeoutError):
            return False
        return True


def _failing(error: str, since: datetime, now: datetime) -> Event:
    what = f"It takes no writes: {redact(error)}. Until it does nobody is told of any outage"
    return opening(Subject(""), "store.failing", Severity.CRITICAL, what, since, now)


def opening(
    subject: Subject, reason: str, severity: Severity, what: str, since: datetime, now: datetime
) -> Event:
    """What the watcher says of itself, without a record of it."""
    name = incident_id(since, reason, subject.name)
    return Event(name, 1, Edge.DEGRADED, subject, now, since, now, reason, severity, what)


def _restored(failing: Event, at: datetime) -> Event:
    return replace(failing, sequence=2, edge=Edge.RECOVERED, at=at, reason="store.restored")
