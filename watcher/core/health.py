"""What a Deployment's own words say of it at one instant: of these rules the first match wins.

Sources: the Deployment controller's conditions and counters
(https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status). A page is
owed for lost capacity and for a rollout that cannot finish, not for one that is on its way.
"""

from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Final

from msgspec.structs import replace

from watcher.core.events import Facts
from watcher.core.model import Assessment, Baseline, Condition, DeploymentSnapshot, Health, Severity
from watcher.core.policy import HealthPolicy

IN_FLIGHT: Final = frozenset(
    {"NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated", "DeploymentResumed"}
)
_STALLED: Final = {
    "ProgressDeadlineExceeded": "rollout_stalled",
    "ReplicaSetCreateError": "replicaset_create_failed",
}
_DELETING: Final = Assessment(Health.DELETING, "deleting", "Deletion was asked for")
_DEFAULT_DEADLINE: Final = 600
"""Of progressDeadlineSeconds; nobody has asked for that one."""
_NOTHING_YET: Final = (0, 0, 0, 0, 0)
_FIRST_MINUTE: Final = timedelta(seconds=60)


def assess(
    s: DeploymentSnapshot, baseline: Baseline, now: datetime, policy: HealthPolicy
) -> Assessment:
    """Judge one snapshot in constant time; never raises.

    `baseline` is what was promised and served before, as this snapshot's spec has already
    updated it (`core.baseline.notice`).
    """
    if s.malformed:
        return Assessment(Health.UNKNOWN, "malformed", s.malformed)
    if s.deleting:
        return _DELETING
    on_its_way = partial(_progressing, s, baseline, now, policy)
    if not s.has_status or (s.generation is not None and s.observed_generation < s.generation):
        words = "the controller has not acted on the latest change yet"
        return on_its_way("spec_not_observed", words)
    if s.desired == 0:
        if s.replicas:
            return on_its_way("scaling_down", f"scaling to zero, {s.replicas} pods remain")
        return Assessment(Health.SCALED_TO_ZERO, "scaled_to_zero", "Scaled to zero")

    floor, short = s.floor, s.short
    failing = _replica_failure(s)
    in_flight = _in_flight(s)

    if s.paused:
        if short and ever_available(s, baseline):
            return _short(s, "its rollout is paused")
        words = f"Rollout paused, {counts(s.available, s.desired, floor)}"
        return Assessment(Health.PAUSED, "paused", words)
    if (progressing := s.progressing_condition) is not None and progressing.status == "False":
        return _degraded(s, _STALLED.get(progressing.reason, "progress_false"), _words(progressing))
    if failing is not None:
        return _degraded(s, "pods_not_created", _words(failing))
    if short:
        bound = _bound(s, baseline, policy)
        if bound is not None and now >= bound:
            return replace(_short(s, _under_way(s, baseline) if in_flight else ""), overdue=True)
        if not ever_available(s, baseline):
            return on_its_way("first_rollout", "first rollout", bound)
        if in_flight and (s.recreate or floor == 0):
            reason = "recreate_gap" if s.recreate else "rolling_out"
            return on_its_way(reason, "rolling out, the strategy permits the gap", bound)
        if (grace_ends := _grace_ends(s, baseline, policy)) is not None and now < grace_ends:
            return on_its_way("scaling_up", "scaling up", min(grace_ends, bound or grace_ends))
        return _short(s)
    condition = s.available_condition
    if condition is not None and condition.status == "False" and s.available >= s.desired:
        return _degraded(s, "available_false", _words(condition))
    if in_flight:
        return on_its_way("rolling_out", "rolling out")
    if s.min_ready_seconds > 0 and s.ready >= s.desired > s.available:
        words = f"waiting for minReadySeconds ({s.min_ready_seconds})"
        return on_its_way("min_ready_wait", words)
    if s.updated < s.desired or s.replicas < s.desired:
        return on_its_way("scaling_up", "scaling up")
    if s.available < s.desired:
        words = "some pods are down, within what the strategy allows"
        return on_its_way("short_within_budget", words)
    return _healthy(s.available, s.desired, floor)


def ever_available(s: DeploymentSnapshot, baseline: Baseline) -> bool:
    """Whether it has served before, so that serving too little is a loss and not a first rollout."""
    if baseline.settled and baseline.serving >= max(baseline.floor, 1):
        return True
    available = s.available_condition
    if available is not None and available.status == "False":
        turned, created = available.transitioned_at, s.created_at
        if turned is not None and created is not None:
            return turned - created > _FIRST_MINUTE
    progressing = s.progressing_condition
    done = progressing is not None and progressing.reason == "NewReplicaSetAvailable"
    return done or s.revision > 1


def fault_asserted_at(s: DeploymentSnapshot, verdict: Assessment) -> datetime | None:
    """When the condition that itself asserts this verdict turned; None where none does."""
    condition: Condition | None
    match verdict.reason:
        case "rollout_stalled" | "replicaset_create_failed" | "progress_false":
            condition, status = s.progressing_condition, "False"
        case "pods_not_created":
            condition, status = s.replica_failure_condition, "True"
        case "none_available" | "below_minimum" | "available_false":
            condition, status = s.available_condition, "False"
        case _:
            return None
    return condition.transitioned_at if condition and condition.status == status else None


def hold(s: DeploymentSnapshot, verdict: Assessment, policy: HealthPolicy) -> timedelta:
    """How long a degraded verdict must stand before anybody is told."""
    if verdict.overdue:
        return timedelta(0)
    if verdict.reason == "rollout_stalled":
        return policy.rollout_stalled_for
    total = verdict.severity is Severity.CRITICAL
    return _total_loss_hold(s, policy) if total else policy.degraded_for


def _total_loss_hold(s: DeploymentSnapshot, policy: HealthPolicy) -> timedelta:
    return policy.degraded_for if s.desired == 1 else policy.none_available_for


def facts(s: DeploymentSnapshot) -> Facts:
    """The numbers that a message shows."""
    old, generation = old_serving(s), s.generation
    return Facts(s.desired, s.floor, s.updated, s.ready, s.available, old, generation, s.revision)


def old_serving(s: DeploymentSnapshot) -> int:
    """Pods of an older version that serve, at least: available ones beyond all updated ones."""
    return max(0, s.serving - s.updated) if s.replicas > s.updated else 0


def counts(available: int, desired: int, floor: int) -> str:
    """`1 of 3 replicas available, 2 needed`."""
    replicas = "replica" if desired == 1 else "replicas"
    needed = f", {floor} needed" if available < floor else ""
    return f"{available} of {desired} {replicas} available{needed}"


@lru_cache(maxsize=1024)  # ten thousand healthy Deployments share the same few verdicts
def _healthy(available: int, desired: int, floor: int) -> Assessment:
    return Assessment(Health.HEALTHY, "", counts(available, desired, floor))


@lru_cache(maxsize=1024)
def _numbers_and(words: str, available: int, desired: int, floor: int) -> str:
    return f"{counts(available, desired, floor)}; {words}"


def _words(condition: Condition) -> str:
    return f"{condition.reason}: {condition.message}" if condition.message else condition.reason


def _severity(s: DeploymentSnapshot) -> Severity:
    return Severity.WARNING if s.serving else Severity.CRITICAL


def _degraded(s: DeploymentSnapshot, reason: str, words: str = "") -> Assessment:
    message = counts(s.available, s.desired, s.floor)
    if old := old_serving(s):
        message += f", the old version still serves with at least {old}"
    if words:
        message += f"; {words}"
    return Assessment(Health.DEGRADED, reason, message, _severity(s))


def _under_way(s: DeploymentSnapshot, baseline: Baseline) -> str:
    if ever_available(s, baseline) or s.created_at is None:
        return "its rollout is still under way"
    return f"its first rollout is still under way, created {s.created_at:%Y-%m-%d %H:%M} UTC"


def _short(s: DeploymentSnapshot, words: str = "") -> Assessment:
    return _degraded(s, "below_minimum" if s.serving else "none_available", words)


def _replica_failure(s: DeploymentSnapshot) -> Condition | None:
    """ReplicaFailure is set and cleared only while a rollout is synced: believed only when pods lack."""
    condition = s.replica_failure_condition
    if condition is None or condition.status != "True":
        return None
    return condition if s.updated < s.desired or s.available < s.desired else None


def _in_flight(s: DeploymentSnapshot) -> bool:
    if s.replicas > s.updated:
        return True
    complete = s.updated >= s.desired and s.replicas == s.updated and s.available >= s.desired
    condition = s.progressing_condition
    if not complete and condition is not None and condition.reason in IN_FLIGHT:
        return True
    # In a Recreate rollout the reason may still be the last one's: the counters tell.
    return s.recreate and s.updated < s.desired and _replica_failure(s) is None


def _grace_ends(s: DeploymentSnapshot, baseline: Baseline, policy: HealthPolicy) -> datetime | None:
    """Until when a raise excuses serving less than the new floor; None if capacity was lost."""
    if baseline.raised_at is None or s.serving < min(baseline.floor, baseline.serving):
        return None
    return baseline.raised_at + policy.scale_up_grace


def _bound(s: DeploymentSnapshot, baseline: Baseline, policy: HealthPolicy) -> datetime | None:
    """Until when nothing may serve, whatever permits it; None for what serves, or never served."""
    lacking = baseline.shortfall
    if s.serving or lacking is None or lacking.nothing_since is None:
        return None
    raised_at = baseline.raised_at
    if baseline.desired == 0 and raised_at is not None and lacking.nothing_since <= raised_at:
        return raised_at + policy.scale_up_grace  # nothing was wanted before
    limit = max(policy.nothing_serves_for, _total_loss_hold(s, policy))
    deadline = s.progress_deadline or 0
    if deadline > _DEFAULT_DEADLINE:
        limit = max(limit, timedelta(seconds=deadline))
    return lacking.nothing_since + limit


def _progress_limit(s: DeploymentSnapshot, policy: HealthPolicy) -> timedelta:
    limit = policy.no_progress_for
    if s.progress_deadline is not None:
        deadline = timedelta(seconds=s.progress_deadline)
        if deadline > limit and _in_flight(s):
            limit = deadline
    if s.min_ready_seconds > 0 and s.ready > s.available:
        limit = max(limit, timedelta(seconds=s.min_ready_seconds + 60))
    return limit


def _progressing(
    s: DeploymentSnapshot, baseline: Baseline, now: datetime, policy: HealthPolicy,
    reason: str, words: str, until: datetime | None = None,
) -> Assessment:  # fmt: skip
    """On its way, or degraded when nothing has moved for too long."""
    stuck_at = (baseline.progressed_at or now) + _progress_limit(s, policy)
    message = _numbers_and(words, s.available, s.desired, s.floor)
    if now >= stuck_at:
        _, _, best, _, _ = baseline.best or _NOTHING_YET
        if best > s.available:
            message += f", {best} available at best"
        message += f", no further since {baseline.moved_at or now:%Y-%m-%d %H:%M} UTC"
        return Assessment(Health.DEGRADED, "no_progress", message, _severity(s), overdue=True)
    until = stuck_at if until is None else min(until, stuck_at)
    return Assessment(Health.PROGRESSING, reason, message, until=until)
