"""How fast a sink is given messages, and what a failed attempt means for it and for its delivery."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from watcher.core.delivery import DeliveryState, Outcome, Part
from watcher.core.model import EPOCH

LONGEST_WAIT: Final = timedelta(hours=1)
"""Bound on what a Retry-After can ask for."""
BURST: Final = 5
"""Messages that a sink may be given at once."""
_BASE: Final = timedelta(seconds=1)
_CAP: Final = timedelta(seconds=300)
_PARKED_FOR: Final = timedelta(minutes=5)
_SLOWLY_FROM: Final = timedelta(minutes=5)
_SLOWLY_SPREAD: Final = timedelta(minutes=10)
_BREAKER_AFTER: Final = 5
_BREAKER_BASE: Final = timedelta(seconds=5)
_BREAKER_CAP: Final = timedelta(seconds=30)


class Pace(Struct, frozen=True):
    """At most one an interval after a burst; exact, as it adds up times rather than fractions."""

    interval: timedelta
    """Zero is unlimited."""
    free_at: datetime = EPOCH
    """When the last one taken would have gone without bursts."""

    def room(self, now: datetime) -> int:
        """How many may go now, at most a burst."""
        if not self.interval:
            return BURST
        behind = max(self.free_at - now, timedelta(0))
        return max((BURST * self.interval - behind) // self.interval, 0)

    def took(self, now: datetime) -> "Pace":
        """After one more has gone."""
        return replace(self, free_at=max(self.free_at, now) + self.interval)

    @property
    def ready_at(self) -> datetime:
        """When there is room for one, if there is none now."""
        return self.free_at - (BURST - 1) * self.interval


class Verdict(Struct, frozen=True):
    """How an attempt that failed is settled; it is due again unless the state is final."""

    state: DeliveryState
    due: datetime | None = None
    counted: bool = True


class Breaker(Struct, frozen=True):
    """After five failures in a row nothing is tried for a while, then one delivery, until one goes."""

    failures: int = 0
    opened_for: timedelta = timedelta(0)
    until: datetime | None = None
    """None while closed; once it has come the breaker is half open."""

    def state(self, now: datetime) -> int:
        """0 closed, 1 half open, 2 open."""
        return 0 if self.until is None else 2 if now < self.until else 1

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
    trouble: str = field(default="", name="parked_reason")  # its name up to schema 2
    """What the last of those failures was."""
    failing_since: datetime | None = None
    """Of the first failure since it last worked that says something of the sink."""

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
        latest = now + LONGEST_WAIT
        return replace(
            self,
            paused_until=self.paused_until and min(self.paused_until, latest),
            edits_from=self.edits_from and min(self.edits_from, latest),
            parked_until=self.parked_until and now,
            breaker=replace(self.breaker, until=self.breaker.until and now),
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
    asked = min(failure.retry_after or timedelta(0), LONGEST_WAIT)
    since = sink.failing_since or now
    stands = replace(sink.answered(), failing_since=since, trouble=failure.reason)
    match failure.outcome:
        case Outcome.BAD_PAYLOAD:
            return Verdict(DeliveryState.DEAD), sink.answered()
        case Outcome.RETRY_SLOWLY:
            wait = max(_SLOWLY_FROM + jitter * _SLOWLY_SPREAD, asked)
            verdict = Verdict(DeliveryState.PENDING, now + wait)
        case Outcome.PARK:
            until = now + _PARKED_FOR
            stands = replace(stands, parked_until=until)
            verdict = Verdict(DeliveryState.PARKED, until, counted=False)
        case Outcome.THROTTLED:
            until = now + max(_BASE, asked or backoff(sink.throttles, jitter))
            paused = "edits_from" if failure.part is Part.EDIT else "paused_until"
            stands = replace(stands, throttles=sink.throttles + 1, **{paused: until})
            verdict = Verdict(DeliveryState.PENDING, until, counted=False)
        case _:
            breaker = sink.breaker.failed(now)
            stands = replace(sink, breaker=breaker, failing_since=since, trouble=failure.reason)
            # While the sink is down its deliveries are due as soon as it is tried again.
            wait = timedelta(0) if breaker.until else backoff(failure.attempts, jitter)
            due = max(breaker.until or now, now + max(wait, asked))
            verdict = Verdict(DeliveryState.PENDING, due, counted=not breaker.until)
    return Verdict(DeliveryState.EXPIRED) if failure.age > max_age else verdict, stands


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
