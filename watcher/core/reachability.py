"""What a cluster's probes and streams say of it: connected, or why it is out of sight."""

from datetime import datetime, timedelta
from typing import Final

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
    good_since: datetime | None = None
    """When the row of successes was long enough to end an outage."""
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
    dark_since: datetime | None = None
    """Since when not every stream shows what is true; None while all do."""


class Judged(Struct, frozen=True):
    """A verdict on a cluster; `since` and `hold` are its own, for the one state machine."""

    verdict: Assessment
    since: datetime | None = None
    hold: timedelta = timedelta(0)


_PATIENCE: Final = timedelta(seconds=30)
"""A server that answers again may keep its streams waiting so long before that is told."""
_CONNECTED: Final = Judged(Assessment(Health.HEALTHY, "connected", "connected"))
_RETURNING: Final = Judged(
    Assessment(Health.PROGRESSING, "returning", "the API server answers again")
)
_SILENT: Final = "the API server answers, the watch does not"


def assess_cluster(signs: Signs, policy: ClusterPolicy, now: datetime, told: str = "") -> Judged:
    """Judge a cluster; `told` is the reason of its open incident, if it has one."""
    if signs.failures:
        return _unanswered(signs, policy)
    if signs.dark_since is None:
        return _CONNECTED if not told or _is_back(signs, policy, now) else _RETURNING
    remains = _remaining(signs, signs.dark_since, policy)
    if not told:
        return remains or _CONNECTED
    if remains is None:  # every stream stands, and not every one has said a word since
        since = max(signs.dark_since, signs.answering_since or signs.dark_since)
        remains = _out_of_sight("view_stale", _SILENT, since, policy.view_stale_for)
    due = patient_until(signs, told)
    over = due is not None and now >= due
    over |= remains.since is not None and now >= remains.since + remains.hold
    return remains if over or remains.verdict.reason == told else _RETURNING


def patient_until(signs: Signs, told: str) -> datetime | None:
    """How long a server that was unreachable and answers well is given to show everything."""
    good = signs.good_since if told == "unreachable" else None
    return good and good + _PATIENCE


def _is_back(signs: Signs, policy: ClusterPolicy, now: datetime) -> bool:
    """Whether an outage is over, with everything in sight: a refusal is an answer as well."""
    answering_since = signs.answering_since or now
    return signs.successes >= policy.successes or now > answering_since + _PATIENCE


def _remaining(signs: Signs, dark_since: datetime, policy: ClusterPolicy) -> Judged | None:
    """Why not every stream can be had. What the API server refuses others is no reason by itself:
    it may let those stand that it has accepted before."""
    if signs.refused_since is not None:
        hold = policy.unauthorized_for
        if signs.refused_with_403 and signs.connected_before:
            hold = policy.forbidden_for
        since = max(signs.refused_since, dark_since)
        return _out_of_sight("unauthorized", signs.refusal, since, hold)
    if signs.throttled_since is not None:
        words = "the API server answers 429 Too Many Requests"
        since = max(signs.throttled_since, dark_since)
        return _out_of_sight("throttled", words, since, policy.throttled_for)
    if signs.unseen_since is not None:
        words = f"{_SILENT}: {signs.unseen}" if signs.unseen else _SILENT
        return _out_of_sight("view_stale", words, signs.unseen_since, policy.view_stale_for)
    return None


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
