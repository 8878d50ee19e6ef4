"""What a failed attempt means: when its delivery is tried again, and what its sink is spared until."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.model import DeliveryState, Outcome, Part

LONGEST_WAIT: Final = timedelta(hours=1)
"""Bound on what a Retry-After can ask for."""
_BASE: Final = timedelta(seconds=1)
_CAP: Final = timedelta(seconds=300)
_PARKED_FOR: Final = timedelta(minutes=5)
_SLOWLY_FROM: Final = timedelta(minutes=5)
_SLOWLY_SPREAD: Final = timedelta(minutes=10)
_BREAKER_AFTER: Final = 5
_BREAKER_BASE: Final = timedelta(seconds=5)
_BREAKER_CAP: Final = timedelta(seconds=30)


class Verdict(Struct, frozen=True):
    """How an attempt that failed is settled."""

    state: DeliveryState
    due: datetime | None = None
    """When to try again, if the state is not final."""
    counted: bool = True


class Breaker(Struct, frozen=True):
    """After five failures in a row nothing is tried for a while, then one delivery, until one goes."""

    failures: int = 0
    opened_for: timedelta = timedelta(0)
    until: datetime | None = None
    """None while closed; once it has come the breaker is half open."""

    def failed(self, now: datetime) -> "Breaker":
        """One more retryable failure: 5 s at the fifth, twice as long at each further, at most 30 s."""
        if self.failures + 1 < _BREAKER_AFTER:
            return replace(self, failures=self.failures + 1)
        if self.until and now < self.until:
            return self  # it was under way when the breaker opened, and is no further evidence
        wait = min(_BREAKER_CAP, self.opened_for * 2 or _BREAKER_BASE)
        return Breaker(self.failures + 1, wait, now + wait)


class SinkState(Struct, frozen=True):
    """What a sink's failures have earned it, kept over restarts."""

    breaker: Breaker = Breaker()
    throttles: int = 0
    """Refusals for being too fast, in a row."""
    paused_until: datetime | None = None
    edits_from: datetime | None = None
    """Edits have a limit of their own in Slack; the rest need not wait for it."""
    parked_until: datetime | None = None
    parked_reason: str = ""

    def held_until(self, now: datetime) -> datetime | None:
        """Until when nothing may be sent; None if something may be sent now."""
        until = (self.paused_until, self.parked_until, self.breaker.until)
        return max((at for at in until if at and at > now), default=None)

    @property
    def probing(self) -> bool:
        """Whether only one delivery at a time may be risked."""
        return bool(self.parked_until or self.breaker.until)

    def answered(self) -> "SinkState":
        """The sink took a delivery, or refused it for what it is: it works. Pauses stay binding."""
        return SinkState(paused_until=self.paused_until, edits_from=self.edits_from)

    def restarted(self, now: datetime) -> "SinkState":
        """A restart may be the human's answer to a parked sink: probe at once; a 429 still counts."""
        pause = self.paused_until and min(self.paused_until, now + LONGEST_WAIT)
        edits = self.edits_from and min(self.edits_from, now + LONGEST_WAIT)
        parked = self.parked_until and now
        breaker = replace(self.breaker, until=self.breaker.until and now)
        return replace(
            self, paused_until=pause, edits_from=edits, parked_until=parked, breaker=breaker
        )


class Failure(Struct, frozen=True):
    """One failed attempt, as far as the policy depends on it."""

    outcome: Outcome
    part: Part
    attempts: int
    """Counted ones before this."""
    age: timedelta
    """Since the delivery was recorded."""
    reason: str = ""
    retry_after: timedelta | None = None


def settle_failure(
    failure: Failure, sink: SinkState, max_age: timedelta, now: datetime, jitter: float
) -> tuple[Verdict, SinkState]:
    """Judge a failed attempt, and say how the sink stands after it.

    `jitter` is 0 to 1: the lower, the sooner. Only what says something of the delivery itself
    counts as its attempt; what says something of the sink does not.
    """
    sink = _sink_after(failure, sink, now, jitter)
    if failure.outcome is Outcome.BAD_PAYLOAD:
        return Verdict(DeliveryState.DEAD), sink
    if failure.age > max_age:
        return Verdict(DeliveryState.EXPIRED), sink
    match failure.outcome:
        case Outcome.PARK:
            return Verdict(DeliveryState.PARKED, sink.parked_until, counted=False), sink
        case Outcome.THROTTLED:
            until = sink.edits_from if failure.part is Part.EDIT else sink.paused_until
            return Verdict(DeliveryState.PENDING, until, counted=False), sink
        case Outcome.RETRY_SLOWLY:
            wait = max(_SLOWLY_FROM + jitter * _SLOWLY_SPREAD, _floor(failure))
            return Verdict(DeliveryState.PENDING, now + wait), sink
        case _ if sink.breaker.until:
            # The sink is down, so the delivery is due as soon as the sink is tried again.
            due = max(sink.breaker.until, now + _floor(failure))
            return Verdict(DeliveryState.PENDING, due, counted=False), sink
        case _:
            wait = max(backoff(failure.attempts, jitter), _floor(failure))
            return Verdict(DeliveryState.PENDING, now + wait), sink


def _sink_after(failure: Failure, sink: SinkState, now: datetime, jitter: float) -> SinkState:
    if failure.outcome is Outcome.PARK:
        until = now + _PARKED_FOR
        return replace(sink.answered(), parked_until=until, parked_reason=failure.reason)
    if failure.outcome is Outcome.THROTTLED:
        wait = max(_BASE, failure.retry_after or backoff(sink.throttles, jitter))
        until = now + min(wait, LONGEST_WAIT)
        slowed = replace(sink.answered(), throttles=sink.throttles + 1)
        if failure.part is Part.EDIT:
            return replace(slowed, edits_from=until)
        return replace(slowed, paused_until=until)
    if failure.outcome in (Outcome.BAD_PAYLOAD, Outcome.RETRY_SLOWLY):
        return sink.answered()
    return replace(sink, breaker=sink.breaker.failed(now))


def _floor(failure: Failure) -> timedelta:
    return min(failure.retry_after or timedelta(0), LONGEST_WAIT)


def backoff(failures: int, jitter: float) -> timedelta:
    """1 s, doubled with each earlier failure up to 300 s, of which `jitter` spares up to half."""
    return (0.5 + 0.5 * jitter) * min(_CAP, _BASE * (1 << min(failures, 30)))


def parse_retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After (RFC 9110 §10.2.3), fractions allowed; None if it asks for no wait.

    `now` is wall time, since an HTTP-date is. The answer is at most an hour.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header, now)
    if not seconds > 0 or math.isinf(seconds):  # NaN too
        return None
    return timedelta(seconds=min(seconds, LONGEST_WAIT.total_seconds()))


def _seconds_until(date: str, now: datetime) -> float:
    try:
        at = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0.0
    return (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
