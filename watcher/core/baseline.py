"""What a subject promised and served before: the memory that makes scaling differ from an outage."""

from datetime import datetime, timedelta
from functools import lru_cache

from msgspec.structs import replace

from watcher.core.health import IN_FLIGHT
from watcher.core.model import SETTLED, Assessment, Baseline, DeploymentSnapshot, Health
from watcher.core.phases import Phase, Steady

NOTHING_KNOWN = Baseline()


def notice(
    baseline: Baseline,
    previous: DeploymentSnapshot | None,
    verdict: Assessment | None,
    s: DeploymentSnapshot,
    now: datetime,
) -> Baseline:
    """Take in a new snapshot before it is judged: raises and progress.

    `previous` and `verdict` are the last snapshot and what was judged of it.
    """
    if s.malformed or s.deleting:
        return baseline
    baseline = _raises(baseline, s, now)
    if baseline.progressed_at is None:
        return baseline
    if verdict is not None and not _on_its_way(verdict):
        return replace(baseline, progressed_at=None, progressing_since=None)
    if previous is not None and _progressed(previous, s):
        return replace(baseline, progressed_at=now)
    return baseline


def settle(
    baseline: Baseline, s: DeploymentSnapshot, verdict: Assessment, now: datetime
) -> Baseline:
    """Take in the verdict: what is settled is the measure of what comes after."""
    if verdict.health in SETTLED:
        return _settled(s.desired, s.floor, s.serving)
    if s.malformed or s.deleting:
        return baseline
    if verdict.health is Health.PROGRESSING and baseline.progressing_since is None:
        moved_at = baseline.progressed_at or now
        baseline = replace(baseline, progressed_at=moved_at, progressing_since=moved_at)
    if baseline.settled or baseline.raised_at is not None:
        return baseline
    floor, serving = s.floor, s.serving
    observed = s.has_status and (s.generation is None or s.observed_generation >= s.generation)
    if not observed or serving < max(floor, 1):
        return baseline
    return replace(baseline, desired=s.desired, floor=floor, serving=serving)


def resume(
    baseline: Baseline, phase: Phase, s: DeploymentSnapshot, now: datetime, away: timedelta
) -> Baseline:
    """Date progress at the first sight after a start: it may be put off by that, never forward.

    `away` is the time without sight before it; the grace of a raise is put off by as much.
    """
    baseline = put_off(baseline, away)
    condition = s.progressing_condition
    moved_at = now
    if isinstance(phase, Steady) and condition is not None and condition.reason in IN_FLIGHT:
        moved_at = min(now, (condition.updated_at or now) + away)
    if baseline.progressing_since is not None:
        moved_at = min(now, max(moved_at, baseline.progressing_since))
        baseline = replace(baseline, progressing_since=moved_at)
    return replace(baseline, progressed_at=moved_at)


def put_off(baseline: Baseline, blind: timedelta) -> Baseline:
    """Give back the time in which nothing could be seen."""
    moved_at = baseline.progressed_at or baseline.progressing_since
    if baseline.raised_at is None and moved_at is None:
        return baseline
    moved_at = moved_at and moved_at + blind
    return replace(
        baseline,
        raised_at=baseline.raised_at and baseline.raised_at + blind,
        progressed_at=baseline.progressed_at and moved_at,
        progressing_since=baseline.progressing_since and moved_at,
    )


def must_be_saved(saved: Baseline | None, baseline: Baseline) -> bool:
    """Whether a restart would judge differently without it."""
    if saved is baseline:
        return False
    if saved is None:
        return True
    since = baseline.progressing_since
    return since not in (None, saved.progressing_since) or _durable(saved) != _durable(baseline)


@lru_cache(maxsize=1024)  # settled Deployments share the same few
def _settled(desired: int, floor: int, serving: int) -> Baseline:
    return Baseline(True, desired, floor, serving)


def _durable(b: Baseline) -> tuple[object, ...]:
    return b.settled, b.desired, b.floor, b.raised_to, b.raised_at


def _raises(b: Baseline, s: DeploymentSnapshot, now: datetime) -> Baseline:
    if b.desired is None or (s.desired <= b.desired and b.raised_at is None):
        return b
    if s.desired <= b.desired:
        return replace(b, raised_to=None, raised_at=None)
    if b.raised_at is None or s.desired > (b.raised_to or b.desired):
        return replace(b, raised_to=s.desired, raised_at=now)
    return b if s.desired == b.raised_to else replace(b, raised_to=s.desired)


def _on_its_way(verdict: Assessment) -> bool:
    return verdict.health in (Health.PROGRESSING, Health.UNKNOWN) or verdict.reason == "no_progress"


def _progressed(before: DeploymentSnapshot, s: DeploymentSnapshot) -> bool:
    """The controller's own measure of progress, and what scaling down moves."""
    return (
        s.generation != before.generation
        or s.updated > before.updated
        or s.ready > before.ready
        or s.available > before.available
        or s.replicas - s.updated < before.replicas - before.updated
        or (s.replicas < before.replicas and s.desired < before.replicas)
    )
