"""How every Deployment stands, as `/health/deployments` and `watcher check` tell it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from watcher.core import annotations
from watcher.core.model import Assessment, DeploymentSnapshot, Health
from watcher.view import ClusterView

Status = Literal["ok", "degraded", "unknown"]


class Row(Struct, frozen=True, gc=False):
    """One Deployment: `status` is the plain comparison, `health` the verdict that pages.

    docs/deployments.schema.json describes both to those who read them.
    """

    cluster: str
    namespace: str
    name: str
    status: Status
    desired: int
    ready: int
    available: int
    updated: int
    health: Health
    reason: str
    message: str
    since: datetime | None


class Report(Struct, frozen=True):
    """All that was asked for, at one instant."""

    status: Status
    as_of: datetime | None
    summary: dict[Health, int]
    """How many there are of each health, all of them named."""
    deployments: Sequence[Row]


def row(s: DeploymentSnapshot, verdict: Assessment, since: datetime | None) -> Row:
    """One line of the answer."""
    status: Status = "ok" if s.ready >= s.desired else "degraded"
    if s.malformed:
        status = "unknown"
    problems = annotations.read(s.annotations).problems
    ignored = "".join(f"; annotation ignored: {problem}" for problem in problems)
    return Row(
        s.cluster, s.namespace, s.name, status, s.desired, s.ready, s.available, s.updated,
        verdict.health, verdict.reason, verdict.message + ignored, since,
    )  # fmt: skip


def rows(cluster: ClusterView, namespace: str | None, now: datetime) -> list[Row]:
    """A cluster's Deployments; out of sight they keep their numbers, and their health is unknown."""
    tracked = [t for t in cluster.tracked.values() if namespace in (None, t.snapshot.namespace)]
    shown = cluster.shown(now)
    reason = "not_fresh" if cluster.reason == "connected" else cluster.reason
    blind = Assessment(Health.UNKNOWN, reason, "Out of sight: the numbers are the last known ones")
    return [
        row(t.snapshot, t.verdict, t.degraded_since)
        if t.scope in shown
        else row(t.snapshot, blind, cluster.blind_since)
        for t in tracked
    ]


def report(found: Iterable[Row], as_of: datetime | None, fresh: bool) -> Report:
    """Sum up; `fresh` says whether the rows are the present ones."""
    deployments = sorted(found, key=lambda r: (r.cluster, r.namespace, r.name))
    statuses = {r.status for r in deployments}
    status: Status = "ok"
    if not fresh or "unknown" in statuses:
        status = "unknown"
    if fresh and "degraded" in statuses:
        status = "degraded"
    counted = Counter(r.health for r in deployments)
    return Report(status, as_of, {health: counted[health] for health in Health}, deployments)
