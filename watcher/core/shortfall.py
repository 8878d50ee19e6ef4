"""When serving fell below the floor, or to nothing: what dates an outage, and bounds a permitted one."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from watcher.core.model import EPOCH, Baseline, DeploymentSnapshot, Shortfall


def follow(
    known: Shortfall | None,
    s: DeploymentSnapshot,
    now: datetime,
    recovered_for: timedelta,
    *,
    served: bool,
    seen_at: datetime | None = None,
) -> Shortfall | None:
    """Take in a new snapshot. `served` is whether it has served before, where nothing is known yet.

    `seen_at` is given when it was out of sight, and is when it was last in sight, EPOCH if never:
    what happened since then is dated by its Available condition.
    """
    if s.desired == 0:
        return None
    if known is not None and _is_over(known, now, recovered_for):
        known, served = None, True
    if known is None:
        return _begin(s, now, seen_at, served=served) if s.short else None
    followed = _go_on(known, s, now, recovered_for, seen_at)
    return known if followed == known else followed


def inherited(
    former: Baseline, at: datetime, now: datetime, recovered_for: timedelta
) -> Shortfall | None:
    """What one that is gone leaves to its successor of the same name; None if it served nothing.

    It was gone `at`; `now` is when that was seen.
    """
    known = former.shortfall
    if known is None or _is_over(known, now, recovered_for):
        return Shortfall(at, nothing_since=now) if former.desired else None
    nothing_since = known.nothing_since
    served = known.serving_since is not None and now - known.serving_since >= recovered_for
    if served or (known.paused and nothing_since is not None):
        nothing_since = now
    since = at if known.serving_since is not None else known.since
    return Shortfall(since, nothing_since=nothing_since) if nothing_since else None


def put_off(known: Shortfall, blind: timedelta) -> Shortfall:
    """Give back the time in which nothing could be seen."""
    return replace(
        known,
        met_since=known.met_since and known.met_since + blind,
        serving_since=known.serving_since and known.serving_since + blind,
        nothing_since=known.nothing_since and known.nothing_since + blind,
    )


def _begin(
    s: DeploymentSnapshot, now: datetime, seen_at: datetime | None, *, served: bool
) -> Shortfall:
    fell_at = _turned_at(s, seen_at, now) or now
    serving_since = None if s.serving == 0 else EPOCH if served else now
    counted_from = fell_at if seen_at == EPOCH else now  # time out of sight does not count
    nothing_since = counted_from if served and s.serving == 0 else None
    return Shortfall(fell_at, None, serving_since, nothing_since, s.paused)


def _go_on(
    known: Shortfall, s: DeploymentSnapshot, now: datetime, recovered_for: timedelta,
    seen_at: datetime | None,
) -> Shortfall:  # fmt: skip
    turned_at, since = _turned_at(s, seen_at, now), known.since
    if turned_at is not None and seen_at is not None:
        seen_short_at = max(seen_at, since)  # a restart may not know that it was seen since
        if turned_at - seen_short_at >= recovered_for:
            since = turned_at  # it may have been well for so long, unseen
    serving_since, nothing_since = known.serving_since, known.nothing_since
    if known.paused and not s.paused:
        nothing_since = nothing_since and now
    if s.serving:
        serving_since = serving_since or now
    elif serving_since is not None:
        served = now - serving_since >= recovered_for
        serving_since, nothing_since = None, now if served else nothing_since
    met_since = None if s.short else known.met_since or now
    return Shortfall(since, met_since, serving_since, nothing_since, s.paused)


def _is_over(known: Shortfall, now: datetime, recovered_for: timedelta) -> bool:
    return known.met_since is not None and now - known.met_since >= recovered_for


def _turned_at(s: DeploymentSnapshot, seen_at: datetime | None, now: datetime) -> datetime | None:
    """When it fell, if that was out of sight and its Available condition asserts it."""
    condition = s.available_condition
    if seen_at is None or condition is None or condition.status != "False":
        return None
    return condition.transitioned_at and min(max(condition.transitioned_at, seen_at), now)
