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
_KNOCK: Final = timedelta(seconds=2)
_KNOCK_FOR: Final = timedelta(minutes=5)
_WARY_FOR: Final = 30
_ANSWERS_A_PLACE: Final = 10


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
    """After five failures in a row nothing is tried for a while, then one delivery, until one goes.

    Where nobody is to be reached it opens at the first failure and asks every 2 s, for five minutes:
    that costs the receiver nothing, and most of them are being restarted.
    """

    failures: int = 0
    opened_for: timedelta = timedelta(0)
    until: datetime | None = None
    """None while closed; once it has come the breaker is half open."""
    unreached_since: datetime | None = None
    """Since when there has been nobody to ask, if that is what the last failure was."""

    def state(self, now: datetime) -> int:
        """0 closed, 1 half open, 2 open."""
        return 0 if self.until is None else 2 if now < self.until else 1

    @property
    def knocking(self) -> bool:
        """Whether it is open for moments only, since nobody was to be reached."""
        return self.until is not None and not self.opened_for

    def failed(self, now: datetime, *, unreached: bool = False) -> "Breaker":
        """One more retryable failure: 5 s at the fifth, twice as long at each further, at most 30 s."""
        if self.until and now < self.until:
            return self  # it was under way when the breaker opened, and is no further evidence
        since = (self.unreached_since or now) if unreached else None
        if since is not None and now - since < _KNOCK_FOR:
            return Breaker(self.failures + 1, until=now + _KNOCK, unreached_since=since)
        # Once somebody answers, if only with an error, what was not reached before says nothing.
        failures = 1 if self.knocking and not unreached else self.failures + 1
        if failures < _BREAKER_AFTER:
            return Breaker(failures)
        wait = min(_BREAKER_CAP, self.opened_for * 2 or _BREAKER_BASE)
        return Breaker(failures, wait, now + wait, since)


class SinkState(Struct, frozen=True):
    """What a sink's failures have earned it, kept over restarts."""

    breaker: Breaker = Breaker()
    throttles: int = 0
    """Refusals for being too fast, in a row, without those that were under way at one."""
    wary: int = 0
    """Answers until as many as ever may be under way, after such a refusal."""
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
        """Whether only one delivery at a time may be risked: it asks whether the trouble is over."""
        return bool(self.parked_until or self.breaker.until or self.paused_until)

    def places(self, concurrency: int) -> int:
        """How many may be under way of as many as the sink takes.

        What is under way at a refusal for being too fast is mostly refused as well, so after one
        they become more again only as answers come.
        """
        return 1 if self.probing else max(1, concurrency - -(-self.wary // _ANSWERS_A_PLACE))

    def answered(self, now: datetime) -> "SinkState":
        """The sink took a delivery, or refused it for what it is: it works.

        A pause that is not over stays binding: this one was under way when it began.
        """
        paused = self.paused_until if self.paused_until and self.paused_until > now else None
        edits = self.edits_from if self.edits_from and self.edits_from > now else None
        return SinkState(
            throttles=self.throttles if paused or edits else 0,
            wary=self.wary if paused else max(0, self.wary - 1),
            paused_until=paused,
            edits_from=edits,
        )

    def restarted(self, now: datetime) -> "SinkState":
        """A restart may be the human's answer to a parked sink: probe at once; a 429 still counts."""
        latest = now + LONGEST_WAIT
        return replace(
            self,
            paused_until=self.paused_until and min(self.paused_until, latest),
            edits_from=self.edits_from and min(self.edits_from, latest),
            parked_until=self.parked_until and now,
            breaker=replace(self.breaker, until=self.breaker.until and now, unreached_since=None),
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
    stands = replace(sink.answered(now), failing_since=since, trouble=failure.reason)
    match failure.outcome:
        case Outcome.BAD_PAYLOAD:
            return Verdict(DeliveryState.DEAD), sink.answered(now)
        case Outcome.RETRY_SLOWLY:
            wait = max(_SLOWLY_FROM + jitter * _SLOWLY_SPREAD, asked)
            verdict = Verdict(DeliveryState.PENDING, now + wait)
        case Outcome.PARK:
            until = now + _PARKED_FOR
            stands = replace(stands, parked_until=until)
            verdict = Verdict(DeliveryState.PARKED, until, counted=False)
        case Outcome.THROTTLED:
            until, stands = _pause(sink, stands, failure.part, asked, now, jitter)
            verdict = Verdict(DeliveryState.PENDING, until, counted=False)
        case _:
            unreached = failure.outcome is Outcome.UNREACHED
            breaker = sink.breaker.failed(now, unreached=unreached)
            stands = replace(sink, breaker=breaker, failing_since=since, trouble=failure.reason)
            # While the sink is down its deliveries are due as soon as it is tried again.
            wait = timedelta(0) if breaker.until else backoff(failure.attempts, jitter)
            due = max(breaker.until or now, now + max(wait, asked))
            verdict = Verdict(DeliveryState.PENDING, due, counted=not breaker.until)
    return Verdict(DeliveryState.EXPIRED) if failure.age > max_age else verdict, stands


def _pause(
    sink: SinkState, stands: SinkState, part: Part, asked: timedelta, now: datetime, jitter: float
) -> tuple[datetime, SinkState]:
    """Until when a refusal for being too fast pauses the sink, or its edits alone."""
    name = "edits_from" if part is Part.EDIT else "paused_until"
    before: datetime | None = getattr(sink, name)
    if before is not None and now < before:  # it was under way when another was refused
        until, throttles = max(before, now + asked), sink.throttles
    else:
        until = now + max(_BASE, asked or backoff(sink.throttles, jitter))
        throttles = sink.throttles + 1
    return until, replace(stands, throttles=throttles, wary=_WARY_FOR, **{name: until})


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
