"""What a subject promised and served before: the memory that makes scaling differ from an outage."""

from datetime import datetime, timedelta
from functools import lru_cache

from msgspec.structs import replace

from watcher.core import shortfall
from watcher.core.health import IN_FLIGHT, ever_available
from watcher.core.model import SETTLED, Assessment, Baseline, DeploymentSnapshot, Health, Level
from watcher.core.phases import Phase, Steady

NOTHING_KNOWN = Baseline()


def notice(
    baseline: Baseline,
    previous: DeploymentSnapshot | None,
    s: DeploymentSnapshot,
    now: datetime,
    recovered_for: timedelta,
    seen_at: datetime | None = None,
) -> Baseline:
    """Take in a new snapshot before it is judged: raises, progress, and whether enough serves.

    `seen_at` is when it was last in sight, where news of it may have been missed since then.
    """
    if s.malformed or s.deleting:
        return baseline
    baseline = _moves(_raises(baseline, s, now), previous, s, now, recovered_for)
    if baseline.shortfall is None and not s.short:
        return baseline
    known, served = baseline.shortfall, baseline.desired is not None or ever_available(s, baseline)
    followed = shortfall.follow(known, s, now, recovered_for, served=served, seen_at=seen_at)
    return baseline if followed is known else replace(baseline, shortfall=followed)


def settle(
    former: Baseline, baseline: Baseline, s: DeploymentSnapshot, verdict: Assessment, now: datetime
) -> Baseline:
    """Take in the verdict: what is settled is the measure of what comes after.

    `former` is the baseline before `notice`: a healthy spell is no progress until it has lasted.
    """
    if verdict.health in SETTLED:
        settled = _settled(s.desired, s.floor, s.serving)
        if baseline.progressing_since is None and baseline.shortfall is None:
            return settled
        return _settling(settled, former, baseline, verdict, now)
    if s.malformed or s.deleting:
        return baseline
    if baseline.healthy_since is not None:
        baseline = replace(baseline, healthy_since=None)
    if verdict.health is Health.PROGRESSING and baseline.progressing_since is None:
        began = baseline.progressed_at or now
        baseline = replace(
            baseline, progressed_at=began, progressing_since=began,
            moved_at=baseline.moved_at or began, best=_level(s), lowest=_level(s),
        )  # fmt: skip
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
    moved_at = baseline.moved_at or baseline.progressing_since
    baseline = put_off(baseline, away)
    condition, progressed_at = s.progressing_condition, now
    if isinstance(phase, Steady) and condition is not None and condition.reason in IN_FLIGHT:
        moved = condition.updated_at or now
        progressed_at = min(now, moved + away)
        moved_at = min(now, max(moved, moved_at or moved))
    if baseline.progressing_since is not None:
        progressed_at = min(now, max(progressed_at, baseline.progressing_since))
        baseline = replace(baseline, progressing_since=progressed_at)
    return replace(baseline, progressed_at=progressed_at, moved_at=moved_at, best=None, lowest=None)


def put_off(baseline: Baseline, blind: timedelta) -> Baseline:
    """Give back the time in which nothing could be seen."""
    moved_at, short = baseline.progressed_at or baseline.progressing_since, baseline.shortfall
    if baseline.raised_at is None and moved_at is None and short is None:
        return baseline
    moved_at = moved_at and moved_at + blind
    return replace(
        baseline,
        raised_at=baseline.raised_at and baseline.raised_at + blind,
        progressed_at=baseline.progressed_at and moved_at,
        progressing_since=baseline.progressing_since and moved_at,
        healthy_since=baseline.healthy_since and baseline.healthy_since + blind,
        shortfall=short and shortfall.put_off(short, blind),
    )


def must_be_saved(saved: Baseline | None, baseline: Baseline) -> bool:
    """Whether a restart would judge differently without it."""
    if saved is baseline:
        return False
    if saved is None:
        return True
    since = baseline.progressing_since
    return since not in (None, saved.progressing_since) or _durable(saved) != _durable(baseline)


def began_at(baseline: Baseline, verdict: Assessment) -> datetime | None:
    """When what a verdict tells began, if that was before the verdict."""
    if baseline.shortfall is not None:
        return baseline.shortfall.since
    return baseline.moved_at if verdict.reason == "no_progress" else None


@lru_cache(maxsize=1024)  # settled Deployments share the same few
def _settled(desired: int, floor: int, serving: int) -> Baseline:
    return Baseline(True, desired, floor, serving)


def _settling(
    settled: Baseline, former: Baseline, b: Baseline, verdict: Assessment, now: datetime
) -> Baseline:
    """Settled but for what a healthy spell ends only once it has lasted."""
    settled = replace(settled, shortfall=b.shortfall)
    if verdict.health is not Health.HEALTHY or b.progressing_since is None:
        return settled
    return replace(
        settled, progressing_since=former.progressing_since, progressed_at=former.progressed_at,
        moved_at=former.moved_at, best=former.best, lowest=former.lowest,
        healthy_since=former.healthy_since or now,
    )  # fmt: skip


def _durable(b: Baseline) -> tuple[object, ...]:
    return b.settled, b.desired, b.floor, b.raised_to, b.raised_at, b.shortfall


def _raises(b: Baseline, s: DeploymentSnapshot, now: datetime) -> Baseline:
    if b.desired is None or (s.desired <= b.desired and b.raised_at is None):
        return b
    if s.desired <= b.desired:
        return replace(b, raised_to=None, raised_at=None)
    if b.raised_at is None or s.desired > (b.raised_to or b.desired):
        return replace(b, raised_to=s.desired, raised_at=now)
    return b if s.desired == b.raised_to else replace(b, raised_to=s.desired)


def _moves(
    b: Baseline, previous: DeploymentSnapshot | None, s: DeploymentSnapshot, now: datetime,
    recovered_for: timedelta,
) -> Baseline:  # fmt: skip
    """Measure progress against the best there was: what a crash loop regains is none.

    A counter that falls lower than ever is measured anew from there, so that coming back slowly
    from a loss is progress.
    """
    if b.progressed_at is None:
        return b
    if b.healthy_since is not None and now - b.healthy_since >= recovered_for:
        return replace(
            b, progressed_at=None, progressing_since=None, moved_at=None, best=None, lowest=None,
            healthy_since=None,
        )  # fmt: skip
    best, lowest, level = b.best, b.lowest, _level(s)
    if previous is not None and _begins_anew(previous, s):
        return replace(b, progressed_at=now, moved_at=now, best=level, lowest=level)
    if best is None or lowest is None:
        return replace(b, best=level, lowest=level)
    rose, fell = _beyond(level, best), _beyond(lowest, level)
    if not rose and not fell:
        return b
    triples = zip(level, best, lowest, strict=True)
    counts = (count if count < low else max(count, most) for count, most, low in triples)
    b = replace(b, best=tuple(counts), lowest=tuple(map(min, level, lowest)))
    return replace(b, progressed_at=now, moved_at=now) if rose else b


def _beyond(level: Level, other: Level) -> bool:
    """Whether it is ahead of the other by any counter."""
    a, b, c, d, e = level
    v, w, x, y, z = other
    return a > v or b > w or c > x or d > y or e > z


def _begins_anew(before: DeploymentSnapshot, s: DeploymentSnapshot) -> bool:
    """Whether something else is rolled out; a change of replicas alone is no rollout."""
    changed = s.generation != before.generation and s.desired == before.desired
    return changed or s.revision != before.revision


def _level(s: DeploymentSnapshot) -> Level:
    """The controller's own measure of progress, and what scaling down moves."""
    surplus = max(0, s.replicas - s.desired)
    return s.updated, s.ready, s.available, s.updated - s.replicas, -surplus
