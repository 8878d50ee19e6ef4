"""How fast a sink may be given messages: a rate, after a burst."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.model import EPOCH

BURST: Final = 5


class Pace(Struct, frozen=True):
    """At most one an interval after a burst; exact, as it adds up times rather than fractions."""

    interval: timedelta
    """Zero is unlimited."""
    free_at: datetime = EPOCH
    """When the last one taken would have gone without bursts."""

    def room(self, now: datetime) -> int:
        """How many may go now, at most a burst."""
        if not self.interval:
            return BURST
        behind = max(self.free_at - now, timedelta(0))
        return max((BURST * self.interval - behind) // self.interval, 0)

    def took(self, now: datetime) -> "Pace":
        """After one more has gone."""
        return replace(self, free_at=max(self.free_at, now) + self.interval)

    @property
    def ready_at(self) -> datetime:
        """When there is room for one, if there is none now."""
        return self.free_at - (BURST - 1) * self.interval
