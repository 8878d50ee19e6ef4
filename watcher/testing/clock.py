"""Time that stands still until it is moved: for tests, the demo's tests and `watcher replay`."""

import asyncio
from datetime import datetime, timedelta

_SETTLE_ROUNDS = 50


class ManualClock:
    """A clock whose `now` moves only by `advance`; whoever waits wakes in order of deadlines."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        """The set time."""
        return self._now

    def wall(self) -> datetime:
        """The set time."""
        return self._now

    def set(self, now: datetime) -> None:
        """Move to `now` without waking anybody: for steps that are driven by hand."""
        self._now = now

    async def sleep(self, seconds: float) -> None:
        """Return once the clock has been advanced that far."""
        await self.wait(asyncio.Event(), self._now + timedelta(seconds=seconds))

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        """Return True once the event is set, False once the clock has reached `until`."""
        if event.is_set():
            return True
        if until is None:
            return await event.wait()
        if until <= self._now:
            return False
        alarm = asyncio.Event()
        sleeper = (until, alarm)
        self._sleepers.append(sleeper)
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(alarm.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.remove(sleeper)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at each deadline that somebody waits for."""
        target = self._now + timedelta(seconds=seconds)
        await self.settle()
        while (due := min((at for at, _ in self._sleepers), default=target)) <= target:
            self._now = max(self._now, due)
            woken = [alarm for at, alarm in self._sleepers if at <= self._now]
            if not woken:
                break
            for alarm in woken:
                alarm.set()
            await self.settle()
        self._now = target
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, waits for nothing
