"""The only reader of time and the only sleeper of the program."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta

_LONGEST_NAP = 30.0
"""Seconds: the event loop's timers stop while a machine sleeps, so a long wait looks again."""


def _boot_seconds() -> float:
    """Seconds since boot, the machine's sleep included, untouched by NTP steps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    """Real time: `now` for deadlines, `wall` for messages and signatures."""

    def __init__(self) -> None:
        self._anchor = datetime.now(UTC)
        self._booted = _boot_seconds()

    def now(self) -> datetime:
        """UTC as read at start, advanced by the boot-time clock: it never steps."""
        return self._anchor + timedelta(seconds=_boot_seconds() - self._booted)

    def wall(self) -> datetime:
        """UTC as the machine tells it now."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await self.wait(asyncio.Event(), self.now() + timedelta(seconds=seconds))

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        while not event.is_set():
            left = _LONGEST_NAP if until is None else (until - self.now()).total_seconds()
            if left <= 0:
                return False
            # Not wait_for: up to Python 3.11 that loses a cancellation that comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LONGEST_NAP)):
                    await event.wait()
        return True
