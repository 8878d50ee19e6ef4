"""An incident and its edges: what is recorded of an outage, and told."""

import hashlib
import uuid
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from watcher.core.model import EPOCH, Severity, Subject


class Flaps(Struct, frozen=True, gc=False):
    """How often a flapping subject was degraded, since when, and how long below its floor in all."""

    times: int
    since: datetime
    lasted: timedelta


class Incident(Struct, frozen=True, gc=False):
    """One announced outage of one subject, from its opening to its end."""

    id: str
    opened_at: datetime
    since: datetime
    reason: str
    severity: Severity
    message: str
    sequence: int = 0
    """Of the last event; counts up within the incident."""
    was_critical: bool = False
    """At any time since its opening, whatever the severity is now."""
    changed_at: datetime | None = None
    """When another reason or severity was last told."""
    wavers: bool = False
    """It has changed again and again: what is no worse is told once it has stood for a while."""
    flapping: bool = False
    flaps: Flaps | None = None
    """Of what is flapping, up to its last edge."""
    silenced: bool = False
    """Nobody was told of the opening, since it was silenced; it is told when that is over."""
    told: dict[str, str] = {}
    """Sinks whose opening was not suppressed → the digest it went into, or empty."""


def incident_id(opened_at: datetime, *identity: str) -> str:
    """Name an incident: a uuid7 (RFC 9562 §5.7) whose random bits are a hash of what it is about.

    Derived rather than drawn, so that a crash before the commit decides on the same incident again.
    """
    milliseconds = int((opened_at - EPOCH).total_seconds() * 1000) & (1 << 48) - 1
    digest = hashlib.sha256("\0".join((opened_at.isoformat(), *identity)).encode()).digest()
    bits = int.from_bytes(digest[:10])
    high, low = bits >> 68, bits & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


class Edge(StrEnum):
    """What happened to an incident."""

    DEGRADED = "degraded"
    UPDATED = "updated"
    RECOVERED = "recovered"
    CLOSED = "closed"
    FLAPPING = "flapping"


OPENINGS: Final = frozenset({Edge.DEGRADED, Edge.FLAPPING})
ENDS: Final = frozenset({Edge.RECOVERED, Edge.CLOSED})


class Resolution(StrEnum):
    """Why an incident ended other than by recovering."""

    DELETED = "deleted"
    RECREATED = "recreated"
    SCALED_TO_ZERO = "scaled_to_zero"
    PAUSED = "paused"
    IGNORED = "ignored"
    LEFT_SCOPE = "left_scope"
    NOT_WATCHED = "not_watched"


class Transition(Struct, frozen=True):
    """One edge of an incident, dated; `incident` is as it stands after the edge."""

    edge: Edge
    at: datetime
    incident: Incident
    resolution: Resolution | None = None
    worsened: bool = False
    still_there: bool = False
    """As on the event."""

    def event(self, subject: Subject) -> "Event":
        """What is recorded of it."""
        i = self.incident
        return Event(
            i.id, i.sequence, self.edge, subject, self.at, i.since, i.opened_at, i.reason, i.severity,
            i.message, self.resolution, self.worsened, i.was_critical, i.flapping,
            flaps=i.flaps, still_there=self.still_there,
        )  # fmt: skip


class Facts(Struct, frozen=True, omit_defaults=True):
    """The numbers behind a Deployment's verdict, as a message shows them."""

    desired: int
    floor: int
    updated: int
    ready: int
    available: int
    old_serving: int = 0
    """Pods of an older version that still serve, at least."""
    generation: int | None = None
    revision: int = 0


class Change(Struct, frozen=True, omit_defaults=True):
    """One Deployment that changed out of sight, and when, if one of its conditions tells."""

    namespace: str
    name: str
    reason: str = ""
    at: datetime | None = None


class Changes(Struct, frozen=True):
    """Those that changed in one way: how many, and the first of them by name."""

    count: int = 0
    deployments: tuple[Change, ...] = ()


class Meanwhile(Struct, frozen=True):
    """What changed while a cluster could not be seen."""

    degraded: Changes = Changes()
    """And still are."""
    returned: Changes = Changes()
    """Went down and came back, as far as their conditions tell."""
    recovered: Changes = Changes()
    """Of those that were announced before."""
    deleted: Changes = Changes()


class Event(Struct, frozen=True, omit_defaults=True):
    """One recorded edge: what every sink renders and the ledger keeps."""

    incident: str
    sequence: int
    edge: Edge
    subject: Subject
    at: datetime
    since: datetime
    opened_at: datetime
    reason: str
    severity: Severity
    message: str
    resolution: Resolution | None = None
    worsened: bool = False
    was_critical: bool = False
    """Its incident, at any time up to now."""
    flapping: bool = False
    flaps: Flaps | None = None
    facts: Facts | None = None
    blind_for: float | None = None
    """Seconds without sight, on a cluster's restored."""
    meanwhile: Meanwhile | None = None
    """Beside it."""
    rewound: bool = False
    """Meanwhile the store behind the API server was put back to an older copy."""
    unseen: bool = False
    """It happened, or fell due, while the cluster could not be seen."""
    still_there: bool = False
    """Closed as deleted before it is gone: a finalizer, or what it owns, can hold it for long."""
    members: tuple[str, ...] = ()
    """Incidents that this event of a digest adds or ends."""
    digest: bool = False

    @property
    def id(self) -> str:
        """Stable over attempts and restarts: `<incident>-<ten digits>`."""
        return f"{self.incident}-{self.sequence:010d}"

    @property
    def type(self) -> str:
        """The event type of the wire formats: `deployment.degraded`, `cluster.unreachable`, …"""
        if self.digest:
            return "digest"
        if not self.subject.cluster:
            return self.reason  # the watcher on itself: `sink.failing`, `store.failing`, `test`
        if not self.subject.is_cluster:
            return f"deployment.{self.edge}"
        if self.edge is Edge.RECOVERED:
            return "cluster.restored"
        return f"cluster.{self.reason if self.edge is Edge.DEGRADED else self.edge}"
