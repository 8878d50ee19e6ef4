"""Where a subject stands between its incidents: the values that `core.transitions` moves."""

from datetime import datetime, timedelta

from msgspec import Struct

from watcher.core.events import Incident
from watcher.core.model import Severity


class Fall(Struct, frozen=True, gc=False, array_like=True):
    """How long serving was below the floor in one degraded episode, or in several put together."""

    at: datetime
    lasted: timedelta
    times: int = 1
    """So many episodes; `at` is the first one's."""


class History(Struct, frozen=True, gc=False):
    """What flapping is counted from: starts of degraded episodes, and announced recoveries."""

    episodes: tuple[datetime, ...] = ()
    recoveries: tuple[datetime, ...] = ()
    falls: tuple[Fall, ...] = ()
    """Of those episodes in which serving was below the floor, as far as that is over."""
    falling: datetime | None = None
    """Since when it is, in the present episode."""


class Steady(Struct, frozen=True, gc=False, tag="steady"):
    """Nothing is announced and nothing is about to be."""

    history: History = History()


class Pending(Struct, frozen=True, gc=False, tag="pending"):
    """Degraded, not yet for long enough."""

    since: datetime
    """When the verdict became degraded: what the hold counts from."""
    due: datetime
    hold: timedelta
    """Of the present reason; `due` may be sooner, when it got worse meanwhile."""
    reason: str
    severity: Severity
    message: str
    blocked: bool = False
    """True while the verdict is unknown or the spec unobserved: it cannot fire meanwhile."""
    history: History = History()
    flaps_at: datetime | None = None
    """When it is told as flapping: with the falls before it, it has lasted for the hold by then."""
    began_at: datetime | None = None
    """When what is to be told began, if that was before the verdict."""

    @property
    def began(self) -> datetime:
        """The true start, which is told."""
        return self.since if self.began_at is None else self.began_at


class Settling(Struct, frozen=True, gc=False):
    """A change of an incident that wavers: told once it has stood until then."""

    due: datetime
    reason: str
    severity: Severity


class Firing(Struct, frozen=True, gc=False, tag="firing"):
    """Announced as degraded; `due` is set while flapping: then it counts as steadily degraded."""

    incident: Incident
    due: datetime | None = None
    history: History = History()
    settling: Settling | None = None


class Clearing(Struct, frozen=True, gc=False, tag="clearing"):
    """Announced, and healthy again, not yet for long enough."""

    incident: Incident
    due: datetime
    history: History = History()


Phase = Steady | Pending | Firing | Clearing
