"""Level-triggered sinks: what stands is told them again and again, for as long as it stands."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from watcher.attempt import notice
from watcher.errors import SinkError, StoreError
from watcher.ports import TOLD_AGAIN_FOR, Clock, Notification, Sink, Store
from watcher.reporting import Reporting


class LevelSink(Sink, Protocol):
    """A sink that forgets what it is not told again."""

    async def restate(self, standing: Sequence[Notification]) -> Sequence[SinkError]:
        """Tell all of it; returns why some peers do not have it, raises SinkError if none has."""


class Restating:
    """Tells one sink at every interval all that it has been told of and that has not ended."""

    def __init__(self, sink: LevelSink, store: Store, clock: Clock, reporting: Reporting) -> None:
        self._sink = sink
        self._store = store
        self._clock = clock
        self._reporting = reporting
        self._unheard = False
        """Whether the last round reached no peer."""

    async def run(self) -> None:
        """Tell, then wait; at the start too, since the sink may have forgotten meanwhile."""
        every = self._sink.traits.restated_every or TOLD_AGAIN_FOR
        while True:
            await self.step(self._clock.now())
            await self._clock.sleep(every.total_seconds())

    async def step(self, now: datetime) -> None:
        """Tell once. What fails is counted, and tried again with the next round."""
        name = self._sink.traits.name
        try:
            standing = await self._store.standing(name, now - TOLD_AGAIN_FOR)
            now = self._clock.wall()
            told = [notice(self._sink, newest, now, before) for *before, newest in standing]
            if not told and not self._unheard:
                return  # nothing was asked of the sink, so nothing is known of it
            missed = await self._sink.restate(told)
        except StoreError as error:
            self._reporting.store_refused(error)
        except SinkError as error:
            self._unheard = True
            self._reporting.restated(name, [error], nobody=True)
        else:
            self._unheard = False
            self._reporting.restated(name, missed)
