"""The values the program thinks in: what was seen, what was judged, what is told."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Health(StrEnum):
    """The verdict on one subject at one instant."""

    HEALTHY = "healthy"
    PROGRESSING = "progressing"
    DEGRADED = "degraded"
    PAUSED = "paused"
    SCALED_TO_ZERO = "scaled_to_zero"
    DELETING = "deleting"
    UNKNOWN = "unknown"


SETTLED: Final = frozenset({Health.HEALTHY, Health.SCALED_TO_ZERO, Health.PAUSED})


class Severity(StrEnum):
    """How bad a degraded subject is: `critical` when nothing serves."""

    WARNING = "warning"
    CRITICAL = "critical"


class Subject(Struct, frozen=True, gc=False):
    """What an incident is about: a Deployment, or with an empty name the cluster itself.

    With a name alone it is a sink, and without any the store.
    """

    cluster: str
    namespace: str = ""
    name: str = ""
    uid: str = ""

    @property
    def is_cluster(self) -> bool:
        """Whether this is a cluster rather than a Deployment in it."""
        return not self.name

    @property
    def is_digest(self) -> bool:
        """Whether this stands for a digest: the storm of one cluster in the sink `name`."""
        return self.uid.startswith("digest/")

    def __str__(self) -> str:
        if self.namespace or not self.name:
            return f"{self.namespace}/{self.name}" if self.name else self.cluster or self.uid
        return f"{'digest in' if self.is_digest else 'sink'} {self.name}"


class Condition(Struct, frozen=True, gc=False):
    """One entry of `status.conditions`; `message` is kept only where it tells of a fault."""

    status: str
    reason: str = ""
    message: str = ""
    transitioned_at: datetime | None = None
    updated_at: datetime | None = None


class DeploymentSnapshot(Struct, frozen=True, gc=False):
    """The dozen fields of a Deployment that health needs, at one resource version."""

    cluster: str
    namespace: str
    name: str
    uid: str
    resource_version: str = ""
    generation: int | None = None
    observed_generation: int = 0
    created_at: datetime | None = None
    revision: int = 0
    """`deployment.kubernetes.io/revision`; 0 when absent or unreadable."""
    annotations: dict[str, str] | None = None
    """Only the `deployment-watcher.dev/…` ones, without the prefix."""
    deleting: bool = False
    paused: bool = False
    recreate: bool = False
    desired: int = 1
    max_unavailable: int = 0
    """Resolved to pods by the API's rounding rules."""
    min_ready_seconds: int = 0
    progress_deadline: int | None = 600
    """Seconds; None when switched off (2147483647)."""
    has_status: bool = True
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    available_condition: Condition | None = None
    available_since: datetime | None = None
    """When that turned True; None while it is not."""
    progressing_condition: Condition | None = None
    replica_failure_condition: Condition | None = None
    malformed: str = ""
    """Why the object cannot be judged; empty when it can."""

    @property
    def subject(self) -> Subject:
        """Its identity: one incident belongs to one uid."""
        return Subject(self.cluster, self.namespace, self.name, self.uid)

    @property
    def floor(self) -> int:
        """How many pods the rollout strategy promises to keep available."""
        return self.desired - self.max_unavailable

    @property
    def serving(self) -> int:
        """Pods that endpoints route to: they follow ready, which leads available by minReadySeconds."""
        return max(self.available, self.ready) if self.min_ready_seconds > 0 else self.available


class Baseline(Struct, frozen=True, gc=False):
    """What one object cannot tell: what was promised and served before, and since when."""

    settled: bool = False
    """Whether desired, floor and serving come from a settled state or are provisional."""
    desired: int | None = None
    floor: int = 0
    serving: int = 0
    raised_to: int | None = None
    """The last desired count seen, so that a further raise is recognised after a restart."""
    raised_at: datetime | None = None
    progressing_since: datetime | None = None
    """Progress is never dated before this: when it began to be waited for, put off by blind time."""
    progressed_at: datetime | None = None
    """Kept in memory only; see `core.baseline.resume`."""


class Assessment(Struct, frozen=True, gc=False):
    """A verdict, in the cluster's own words; `until` is when time alone changes it."""

    health: Health
    reason: str = ""
    message: str = ""
    severity: Severity | None = None
    until: datetime | None = None


class History(Struct, frozen=True, gc=False):
    """What flapping is counted from: starts of degraded episodes, and announced recoveries."""

    episodes: tuple[datetime, ...] = ()
    recoveries: tuple[datetime, ...] = ()


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
    flapping: bool = False
    silenced: bool = False
    """Nobody was told of the opening, since it was silenced; it is told when that is over."""
    told: dict[str, str] = {}
    """Sinks whose opening was not suppressed → the digest it went into, or empty."""


class Steady(Struct, frozen=True, gc=False, tag="steady"):
    """Nothing is announced and nothing is about to be."""

    history: History = History()


class Pending(Struct, frozen=True, gc=False, tag="pending"):
    """Degraded, not yet for long enough."""

    since: datetime
    due: datetime
    hold: timedelta
    """Of the present reason; `due` may be sooner, when it got worse meanwhile."""
    reason: str
    severity: Severity
    message: str
    blocked: bool = False
    """True while the verdict is unknown or the spec unobserved: it cannot fire meanwhile."""
    history: History = History()


class Firing(Struct, frozen=True, gc=False, tag="firing"):
    """Announced as degraded; `due` is set while flapping: then it counts as steadily degraded."""

    incident: Incident
    due: datetime | None = None
    history: History = History()


class Clearing(Struct, frozen=True, gc=False, tag="clearing"):
    """Announced, and healthy again, not yet for long enough."""

    incident: Incident
    due: datetime
    history: History = History()


Phase = Steady | Pending | Firing | Clearing


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

    def event(self, subject: Subject) -> "Event":
        """What is recorded of it."""
        i = self.incident
        return Event(
            incident=i.id,
            sequence=i.sequence,
            edge=self.edge,
            subject=subject,
            at=self.at,
            since=i.since,
            opened_at=i.opened_at,
            reason=i.reason,
            severity=i.severity,
            message=i.message,
            resolution=self.resolution,
            worsened=self.worsened,
            was_critical=i.was_critical,
            flapping=i.flapping,
        )


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
    facts: Facts | None = None
    blind_for: float | None = None
    """Seconds without sight, on a cluster's restored."""
    meanwhile: Meanwhile | None = None
    """Beside it."""
    unseen: bool = False
    """It happened, or fell due, while the cluster could not be seen."""
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


class Part(StrEnum):
    """Which piece of an event a delivery carries; chat sinks with threads know three."""

    EVENT = "event"
    POST = "post"
    EDIT = "edit"
    REPLY = "reply"


class DeliveryState(StrEnum):
    """Where an outbox row stands; the last six are final."""

    PENDING = "pending"
    INFLIGHT = "inflight"
    PARKED = "parked"
    DELIVERED = "delivered"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    GROUPED = "grouped"
    """Told by a digest."""


class Outcome(StrEnum):
    """What a failed attempt means for its delivery and its sink."""

    RETRY = "retry"
    """Try again with backoff, at the soonest after `retry_after`."""
    RETRY_SLOWLY = "retry_slowly"
    """As retry, with minutes in between: a redirect, a workspace being migrated."""
    THROTTLED = "throttled"
    """As retry; the whole sink waits and no attempt is counted."""
    PARK = "park"
    """A human must act; the sink keeps its queue and probes slowly."""
    BAD_PAYLOAD = "bad_payload"
    """This message as it is will never be taken: once more in plain text, then dead."""
    REPOST = "repost"
    """The message to edit or reply to is gone: post anew."""


class Delivery(Struct, frozen=True):
    """One outbox row: one part of one event for one sink."""

    sink: str
    event: str
    incident: str
    sequence: int
    part: Part
    due: datetime
    state: DeliveryState = DeliveryState.PENDING
    reason: str = ""
    digest: str = ""

    @property
    def id(self) -> str:
        """The same on every attempt and after every restart."""
        return delivery_id(self.event, self.sink, self.part)


_DELIVERIES: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "deliveries.deployment-watcher.dev")


def delivery_id(event: str, sink: str, part: Part) -> str:
    """Name a delivery: uuid5 of (event, sink, part)."""
    return str(uuid.uuid5(_DELIVERIES, f"{event}/{sink}/{part}"))


def incident_id(opened_at: datetime, *identity: str) -> str:
    """Name an incident: a uuid7 (RFC 9562 §5.7) whose random bits are a hash of what it is about.

    Derived rather than drawn, so that a crash before the commit decides on the same incident again.
    """
    milliseconds = int((opened_at - EPOCH).total_seconds() * 1000) & (1 << 48) - 1
    digest = hashlib.sha256("\0".join((opened_at.isoformat(), *identity)).encode()).digest()
    bits = int.from_bytes(digest[:10])
    high, low = bits >> 68, bits & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


Json = dict[str, Any]
