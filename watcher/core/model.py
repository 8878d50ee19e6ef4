"""What was seen of a subject, and what was judged of it."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

Json = dict[str, Any]
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
    def short(self) -> bool:
        """Whether nothing serves, or less than the floor."""
        serving = self.serving
        return serving < self.desired - self.max_unavailable or serving == 0

    @property
    def serving(self) -> int:
        """Pods that endpoints route to: they follow ready, which leads available by minReadySeconds."""
        return max(self.available, self.ready) if self.min_ready_seconds > 0 else self.available


class Shortfall(Struct, frozen=True, gc=False):
    """Too little serves, or did until a moment ago: below the floor, or nothing at all.

    It is over when the floor was met for `recovered_for`; until then each fall is the same one.
    """

    since: datetime
    """When it began; a date that is told, so that blind time does not put it off."""
    met_since: datetime | None = None
    """Since when the floor is met again; None while it is not."""
    serving_since: datetime | None = None
    """Since when at least one pod serves; None while none does."""
    nothing_since: datetime | None = None
    """When it last served for `recovered_for`, put off by blind time; None if it never did."""
    paused: bool = False
    """Whether its rollout was paused when it was last seen."""


Level = tuple[int, int, int, int, int]
"""How far a rollout has come: updated, ready and available pods, and old and surplus ones as less than
none, so that of each more is better."""


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
    """Kept in memory only, as are the levels; see `core.baseline.resume`."""
    moved_at: datetime | None = None
    """The same, as a date that is told: blind time does not put it off."""
    best: Level | None = None
    """The best of each counter since the measure began."""
    lowest: Level | None = None
    """The worst of each."""
    healthy_since: datetime | None = None
    """While progress was waited for and it is healthy, for now."""
    shortfall: Shortfall | None = None
    left_at: datetime | None = None
    """When it was gone: the shortfall is what a successor of its name is measured by."""


class Assessment(Struct, frozen=True, gc=False):
    """A verdict, in the cluster's own words; `until` is when time alone changes it."""

    health: Health
    reason: str = ""
    message: str = ""
    severity: Severity | None = None
    until: datetime | None = None
    overdue: bool = False
    """It has been waited for already, so that no hold follows."""
