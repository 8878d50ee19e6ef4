"""How fast a sink may be given messages: a rate, after a burst."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from watcher.core.model import EPOCH

BURST: Final = 5


class Pace(Struct, frozen=True):
    """At most one an interval after a burst; exact, as it adds up times rather than fractions."""

    interval: timedelta
    """Zero is unlimited."""
    free_at: datetime = EPOCH
    """When the last one taken would have gone without bursts."""

    @classmethod
    def of(cls, rate: float) -> "Pace":
        """So many a second; 0 is unlimited."""
        return cls(timedelta(seconds=1 / rate) if rate else timedelta(0))

    def room(self, now: datetime) -> int:
        """How many may go now, at most a burst."""
        if not self.interval:
            return BURST
        behind = max(self.free_at - now, timedelta(0))
        return max((BURST * self.interval - behind) // self.interval, 0)

    def took(self, now: datetime) -> "Pace":
        """After one more has gone."""
        return Pace(self.interval, max(self.free_at, now) + self.interval)

    @property
    def ready_at(self) -> datetime:
        """When there is room for one, if there is none now."""
        return self.free_at - (BURST - 1) * self.interval
