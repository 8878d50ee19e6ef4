"""What a cluster's probes and streams say of it: connected, or why it is out of sight."""

from datetime import datetime, timedelta

from msgspec import Struct

from watcher.core.model import Assessment, Health, Severity
from watcher.core.policy import ClusterPolicy


class Signs(Struct, frozen=True):
    """Everything that the verdict on a cluster depends on."""

    failures: int = 0
    """Probes without an answer in a row, and since when."""
    failing_since: datetime | None = None
    failure: str = ""
    successes: int = 0
    connected_before: bool = False
    refused_since: datetime | None = None
    """401 or 403, of a probe or of a stream."""
    refusal: str = ""
    refused_with_403: bool = False
    throttled_since: datetime | None = None
    unseen_since: datetime | None = None
    """Since when a list or watch cannot be had."""
    unseen: str = ""
    answering_since: datetime | None = None
    """The first of the present row of answers, whatever they said."""
    last_byte_at: datetime | None = None
    """Of any watch stream."""
    in_sight: bool = True
    """Whether every stream shows what is true now."""


class Judged(Struct, frozen=True):
    """A verdict on a cluster; `since` and `hold` are its own, for the one state machine."""

    verdict: Assessment
    since: datetime | None = None
    hold: timedelta = timedelta(0)


_RETURNING = Judged(Assessment(Health.PROGRESSING, "returning", "the API server answers again"))


def assess_cluster(signs: Signs, policy: ClusterPolicy, now: datetime, in_outage: bool) -> Judged:
    """Judge a cluster. In an announced outage it takes `successes` probes and full sight to end it."""
    if signs.failures:
        return _unanswered(signs, policy)
    judged = _answered(signs, policy)
    if not in_outage:
        return judged
    if judged.verdict.health is Health.HEALTHY:
        back = signs.in_sight and signs.successes >= policy.successes
        return judged if back else _RETURNING
    # A server that has just come back may refuse, throttle or lag for as long as ever it may.
    return judged if judged.since and now >= judged.since + judged.hold else _RETURNING


def _answered(signs: Signs, policy: ClusterPolicy) -> Judged:
    if signs.refused_since is not None:
        hold = policy.unauthorized_for
        if signs.refused_with_403 and signs.connected_before:
            hold = policy.forbidden_for
        return _out_of_sight("unauthorized", signs.refusal, signs.refused_since, hold)
    if signs.throttled_since is not None:
        words = "the API server answers 429 Too Many Requests"
        return _out_of_sight("throttled", words, signs.throttled_since, policy.throttled_for)
    if signs.unseen_since is not None:
        words = "the API server answers, the watch does not"
        words += f": {signs.unseen}" if signs.unseen else ""
        return _out_of_sight("view_stale", words, signs.unseen_since, policy.view_stale_for)
    return Judged(Assessment(Health.HEALTHY, "connected", "connected"))


def _unanswered(signs: Signs, policy: ClusterPolicy) -> Judged:
    since = signs.failing_since
    heard = signs.last_byte_at is not None and since is not None and signs.last_byte_at > since
    if signs.failures < policy.failures or heard:
        # One bad API server behind a balancer, or a blip: neither an outage nor the end of one.
        return Judged(Assessment(Health.UNKNOWN, "unanswered", signs.failure))
    return _out_of_sight("unreachable", signs.failure, since, timedelta(0))


def _out_of_sight(reason: str, words: str, since: datetime | None, hold: timedelta) -> Judged:
    verdict = Assessment(Health.DEGRADED, reason, words, Severity.CRITICAL)
    return Judged(verdict, since, hold)
