"""What is known of each cluster now, and how old that knowledge is.

Written by the observer and the heartbeat, read by the web and the dead-man ping.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta

from watcher.core.events import Incident
from watcher.core.model import EPOCH, Assessment, Baseline, DeploymentSnapshot, Health
from watcher.core.namespaces import NOTHING, Exclusion
from watcher.core.phases import Clearing, Firing, Pending, Phase
from watcher.core.transitions import STEADY
from watcher.errors import ClusterError
from watcher.ports import Probe, Stream

_OF_STREAMS = frozenset({"unauthorized", "view_stale", "throttled"})
"""Reasons that may be those of some namespaces only."""
UNJUDGED = Assessment(Health.UNKNOWN, "unjudged", "Not judged yet")


@dataclass(slots=True, eq=False)
class Tracked:
    """One Deployment: what was last seen, what was judged of it and where it stands."""

    scope: str
    snapshot: DeploymentSnapshot
    verdict: Assessment
    baseline: Baseline
    since: datetime
    """When the present health was first seen."""
    confirmed_at: datetime = EPOCH
    """When the API server last showed it as the snapshot has it."""
    phase: Phase = STEADY
    saved: Baseline | None = None
    """The baseline as the store has it."""
    scheduled: datetime | None = None
    """The deadline that the observer has queued for it."""

    @property
    def degraded_since(self) -> datetime:
        """The true start of what is wrong, else since when its health is what it is."""
        match self.phase:
            case Pending(began=began):
                return began
            case Firing(incident=incident) | Clearing(incident=incident):
                return incident.since
            case _:
                return self.since


@dataclass(eq=False)
class Scope:
    """The list-watch of one namespace, or of all: what it showed and what ails it."""

    listed_at: datetime | None = None
    """When its last complete list was taken in."""
    opening: bool = False
    """Just listed: blind time ends with that, and sight returns when its stream opens."""
    open: bool = False
    error: ClusterError | None = None
    broken_at: datetime | None = None
    """Since when it cannot be had; None while it can."""
    back_at: datetime | None = None
    """When it was last found again, having been lost alone."""

    def listed(self, now: datetime) -> None:
        """A complete list has been taken in, and the stream after it is being opened."""
        self.listed_at, self.opening = now, True

    def opened(self) -> None:
        """The stream is open, and all that had piled up is in."""
        self.open, self.opening = True, False
        self.error = self.broken_at = None

    def broke(self, error: ClusterError | None, now: datetime) -> None:
        """The stream has ended, or list or watch cannot be had."""
        self.open, self.opening, self.error = False, False, error
        self.broken_at = self.broken_at or now


@dataclass(eq=False)
class ClusterView:
    """One cluster as seen by this process, which has seen nothing of it yet."""

    name: str
    names: InitVar[Sequence[str]]
    """Of its scopes."""
    stream: Callable[[str], Stream]
    """What the list-watch of a scope says of itself now."""
    silent_for: timedelta
    blind_since: datetime | None
    fresh_since: datetime | None = None
    lost: frozenset[str] = frozenset()
    """Scopes out of sight while the server answers and others are in it: only they are frozen."""
    tracked: dict[str, Tracked] = field(default_factory=dict)
    phase: Phase = STEADY
    """Of the cluster itself: firing while an outage is announced."""
    reason: str = "starting"
    """`connected`, or why it is not."""
    probe: Probe | None = None
    probed_at: datetime | None = None
    version: str = ""
    failed_at: datetime | None = None
    """The last probe that got no answer."""
    restored_at: datetime | None = None
    """When the last announced outage ended."""
    complete_at: datetime | None = None
    """When every scope was first listed; None before."""
    excluded: Exclusion = NOTHING
    """Namespaces that its scopes leave out."""

    def __post_init__(self, names: Sequence[str]) -> None:
        self.scopes: Mapping[str, Scope] = {name: Scope() for name in names}

    def watches(self, namespace: str) -> bool:
        """Whether one of its scopes shows this namespace, if there is such a one."""
        return bool({"", namespace} & self.scopes.keys()) and namespace not in self.excluded

    def last_byte_at(self) -> datetime | None:
        """The newest byte of any of its streams."""
        return max(filter(None, self._heard()), default=None)

    def rewound_after(self, since: datetime) -> bool:
        """Whether a stream has found the server's store put back to an older copy since then."""
        found = (self.stream(scope).rewound_at for scope in self.scopes)
        return any(at is not None and at >= since for at in found)

    def in_sight(self, now: datetime) -> bool:
        """A complete list applied, every stream open and not silent, no probe failed since."""
        return len(self._seen(now)) == len(self.scopes)

    def fresh(self, now: datetime) -> bool:
        """In sight, and no incident of the cluster open."""
        return self.incident is None and self.in_sight(now)

    def shown(self, now: datetime) -> AbstractSet[str]:
        """The scopes of which verdicts are passed: with the lost ones it is all or none."""
        seen = self._seen(now) if self.outage is None else frozenset()
        return seen if seen | self.lost == self.scopes.keys() else frozenset()

    def lost_scopes(self, now: datetime) -> frozenset[str]:
        """What is lost now."""
        seen = self._seen(now)
        answered = self.probe is not None and self.probe.error is None
        return frozenset(self.scopes.keys() - seen if seen and answered else ())

    @property
    def outage(self) -> Incident | None:
        """The open incident of the cluster, unless it is of the lost scopes only."""
        incident = self.incident
        return None if incident and self.lost and self.reason in _OF_STREAMS else incident

    @property
    def incident(self) -> Incident | None:
        """The open incident of the cluster itself."""
        phase = self.phase  # asked for at every event: a tuple is three times as fast as a union
        return phase.incident if isinstance(phase, (Firing, Clearing)) else None

    def as_of(self, now: datetime) -> datetime | None:
        """When its rows were last known to be true; None before the first list."""
        if self.complete_at is None:
            return None
        outage = self.outage
        if outage is None and self.in_sight(now):
            streams = map(self.stream, self.scopes)
            held_back = (s.last_byte_at for s in streams if s.shortened_by == "withheld")
            return min(filter(None, held_back), default=now)
        heard = zip(self._heard(), (scope.listed_at for scope in self.scopes.values()), strict=True)
        oldest = min(max(filter(None, times)) for times in heard)
        known = max(filter(None, (oldest, self.blind_since)))
        return min(known, outage.opened_at) if outage else known  # news is not shown until its end

    def age(self, now: datetime) -> timedelta | None:
        """How long its rows may have been out of date; None before the first list."""
        as_of = self.as_of(now)
        return None if as_of is None else now - as_of

    def _heard(self) -> Iterable[datetime | None]:
        return (self.stream(scope).last_byte_at for scope in self.scopes)

    def _seen(self, now: datetime) -> frozenset[str]:
        scopes = self.scopes.items()
        return frozenset(name for name, s in scopes if self._scope_in_sight(name, s, now))

    def _scope_in_sight(self, name: str, scope: Scope, now: datetime) -> bool:
        if not (scope.listed_at and scope.open):
            return False
        heard = self.stream(name).last_byte_at
        if heard is None or now - heard > self.silent_for:
            return False
        return self.failed_at is None or heard > self.failed_at


@dataclass(eq=False)
class View:
    """Everything this process knows now."""

    clusters: dict[str, ClusterView] = field(default_factory=dict)
    store_error: str | None = "not opened yet"
    """Why the store does not write; None while it does."""
    leading: bool = False
    """Whether this process records and sends; otherwise it stands by."""
    sink_troubles: dict[str, str] = field(default_factory=dict)
    """Sinks that cannot deliver, and why."""
    dead_man: str = ""
    """Why the dead-man ping is withheld; empty while it is not."""
    config: str = ""
    """Why the newest configuration is not in force, or not all of it; empty while it is."""

    def not_ready(self, now: datetime) -> list[str]:
        """Why this process cannot be relied on, empty when it can."""
        reasons = [f"store: {self.store_error}"] if self.store_error else []
        for cluster in self.clusters.values():
            errors = {str(s.error) for s in cluster.scopes.values() if s.error is not None}
            why = "; ".join(sorted(errors))
            if (age := cluster.age(now)) is None:
                reasons.append(f"cluster {cluster.name}: {why or 'the first list is not in yet'}")
            elif age > 3 * cluster.silent_for:  # W35
                seconds = f"what is shown is {age.total_seconds():.0f} s old"
                reasons.append(f"cluster {cluster.name}: {': '.join(filter(None, (seconds, why)))}")
        return reasons


def is_older(version: str, than: str) -> bool:
    """Whether a resource version is known to be older: only numbers compare (KEP-5504)."""
    numbers = version.isdecimal() and than.isdecimal()
    return numbers and (len(version), version) < (len(than), than)
