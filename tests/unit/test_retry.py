"""What a failed attempt means for its delivery and its sink."""

from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.deliveries import NOW
from watcher.core.delivery import DeliveryState, Outcome, Part
from watcher.core.retry import (
    Breaker,
    Failure,
    SinkState,
    Verdict,
    backoff,
    parse_retry_after,
    settle_failure,
)

DAY = timedelta(days=1)
PENDING, PARKED = DeliveryState.PENDING, DeliveryState.PARKED


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def failure(
    outcome: Outcome, part: Part = Part.EVENT, attempts: int = 0, after: float | None = None
) -> Failure:
    asked = None if after is None else timedelta(seconds=after)
    return Failure(outcome, part, attempts, timedelta(0), "http_503", asked)


def settled(
    failed: Failure, sink: SinkState | None = None, jitter: float = 1.0
) -> tuple[Verdict, SinkState]:
    return settle_failure(failed, sink or SinkState(), DAY, NOW, jitter)


@pytest.mark.parametrize(
    ("failed", "jitter", "wanted"),
    [
        pytest.param(failure(Outcome.RETRY), 1.0, Verdict(PENDING, at(1)), id="first"),
        pytest.param(failure(Outcome.RETRY), 0.0, Verdict(PENDING, at(0.5)), id="half at least"),
        pytest.param(failure(Outcome.RETRY, attempts=3), 1.0, Verdict(PENDING, at(8)), id="doubled"),
        pytest.param(failure(Outcome.RETRY, attempts=10**6), 1.0, Verdict(PENDING, at(300)), id="capped"),
        pytest.param(failure(Outcome.RETRY, after=7), 1.0, Verdict(PENDING, at(7)), id="asked to wait"),
        pytest.param(failure(Outcome.RETRY, after=0.1), 1.0, Verdict(PENDING, at(1)), id="a floor only"),
        pytest.param(failure(Outcome.RETRY, after=10**6), 1.0, Verdict(PENDING, at(3600)), id="at most an hour"),
        pytest.param(failure(Outcome.RETRY_SLOWLY), 0.0, Verdict(PENDING, at(300)), id="slowly, soonest"),
        pytest.param(failure(Outcome.RETRY_SLOWLY), 1.0, Verdict(PENDING, at(900)), id="slowly, latest"),
        pytest.param(failure(Outcome.THROTTLED, after=30), 1.0, Verdict(PENDING, at(30), False), id="throttled"),
        pytest.param(failure(Outcome.THROTTLED), 0.0, Verdict(PENDING, at(1), False), id="never hot"),
        pytest.param(failure(Outcome.PARK), 1.0, Verdict(PARKED, at(300), False), id="a human must act"),
        pytest.param(failure(Outcome.BAD_PAYLOAD), 1.0, Verdict(DeliveryState.DEAD), id="never taken"),
        pytest.param(failure(Outcome.REPOST, Part.POST), 1.0, Verdict(PENDING, at(1)), id="a post is not a reply"),
    ],
)  # fmt: skip
def test_verdict(failed: Failure, jitter: float, wanted: Verdict) -> None:
    """Each outcome has its wait; only what says something of the delivery counts as an attempt."""
    assert settled(failed, jitter=jitter)[0] == wanted


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.THROTTLED, Outcome.PARK])
def test_old_deliveries_expire(outcome: Outcome) -> None:
    """Nothing is tried for longer than it is of use, whatever keeps it from arriving."""
    old = Failure(outcome, Part.EVENT, 9, DAY + timedelta(seconds=1))
    assert settled(old)[0] == Verdict(DeliveryState.EXPIRED)


def test_throttled_edits_pause_edits_alone() -> None:
    """Slack limits edits by themselves: an end is not held up by them."""
    _, sink = settled(failure(Outcome.THROTTLED, Part.EDIT, after=30))
    assert (sink.edits_from, sink.held_until(NOW)) == (at(30), None)
    _, sink = settled(failure(Outcome.THROTTLED, Part.POST, after=30), sink)
    assert (sink.edits_from, sink.held_until(NOW)) == (at(30), at(30))


def test_a_throttle_without_a_time_backs_off() -> None:
    """A sink that says only «too fast» is asked less and less, though no attempt is counted."""
    now, sink, waits = NOW, SinkState(), []
    for _ in range(4):
        _, sink = settle_failure(failure(Outcome.THROTTLED), sink, DAY, now, 1.0)
        assert sink.paused_until
        waits.append((sink.paused_until - now).total_seconds())
        now = sink.paused_until
    assert waits == [1, 2, 4, 8]


def test_refusals_of_what_was_under_way_count_once() -> None:
    """Four at once that are all too fast are one reason to wait; a longer wait that is asked for counts."""
    sink = SinkState()
    for after in (None, None, 0.5, None):
        verdict, sink = settled(failure(Outcome.THROTTLED, after=after), sink)
        assert (verdict.due, sink.throttles) == (at(1), 1)
    verdict, sink = settled(failure(Outcome.THROTTLED, after=9), sink)
    assert (verdict.due, sink.paused_until, sink.throttles) == (at(9), at(9), 1)


def test_after_a_throttle_one_asks_and_more_follow_as_it_answers() -> None:
    """The one that asks whether it is over has no others in its shadow, nor has the next refusal."""
    _, sink = settled(failure(Outcome.THROTTLED, after=30))
    places = []
    for _ in range(33):
        places.append(sink.places(4))
        sink = sink.answered(at(31))
    assert places == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 3
    assert sink == SinkState()
    assert settled(failure(Outcome.THROTTLED))[1].places(1) == 1
    assert SinkState().places(4) == 4


def test_a_success_does_not_end_a_pause() -> None:
    """One that was under way when another was throttled proves nothing."""
    _, sink = settled(failure(Outcome.THROTTLED, after=30))
    assert sink.answered(NOW).held_until(NOW) == at(30)
    assert sink.answered(NOW).throttles == 1
    assert sink.answered(at(30)).probing is False


def test_breaker_opens_longer_and_longer() -> None:
    """Five failures in a row open it for 5 s, each failed probe for twice as long, up to 30 s."""
    now, sink, waits = NOW, SinkState(), []
    for _ in range(9):
        verdict, sink = settle_failure(failure(Outcome.RETRY), sink, DAY, now, 1.0)
        assert verdict.due
        waits.append((verdict.due - now).total_seconds())
        now = verdict.due
    assert waits == [1, 1, 1, 1, 5, 10, 20, 30, 30]
    assert sink.probing
    assert sink.held_until(now) is None


def knocks(sink: SinkState, now: datetime, count: int) -> tuple[SinkState, list[float]]:
    """The state after so many attempts that reached nobody, and the waits between them."""
    waits = []
    for _ in range(count):
        verdict, sink = settle_failure(failure(Outcome.UNREACHED), sink, DAY, now, 1.0)
        assert verdict.due
        assert not verdict.counted
        waits.append((verdict.due - now).total_seconds())
        now = verdict.due
    return sink, waits


def test_where_nobody_is_to_be_reached_it_is_asked_every_two_seconds() -> None:
    """From the first time on, for five minutes, at no attempt; then as anything that is down."""
    sink, waits = knocks(SinkState(), NOW, 155)
    assert waits == [2] * 150 + [5, 10, 20, 30, 30]
    assert sink.places(4) == 1
    _, waits = knocks(sink.restarted(at(500)), at(500), 2)
    assert waits == [2, 2], "a restart, as of all that stood beside it, begins anew"


def test_an_answer_ends_the_knocking() -> None:
    """A receiver that is up and not ready is waited for as usual; one that goes away once more is not."""
    sink, _ = knocks(SinkState(), NOW, 100)
    verdict, sink = settle_failure(failure(Outcome.RETRY), sink, DAY, at(200), 1.0)
    assert (verdict.due, verdict.counted, sink.places(4)) == (at(201), True, 4)
    _, waits = knocks(sink, at(201), 2)
    assert waits == [2, 2]
    opened = SinkState(Breaker(9, timedelta(seconds=30), at(0)))
    sink, waits = knocks(opened, NOW, 2)
    assert waits == [2, 2]
    assert settle_failure(failure(Outcome.RETRY), sink, DAY, at(4), 1.0)[0].due == at(5)


def test_an_open_breaker_costs_no_attempt() -> None:
    """While the sink is down its deliveries are due as soon as it is tried again."""
    breaker = Breaker(5, timedelta(seconds=5), at(5))
    sink = SinkState(breaker, failing_since=at(-9), trouble="http_503")
    verdict, after = settled(failure(Outcome.RETRY, attempts=20), sink)
    assert verdict == Verdict(PENDING, at(5), counted=False)
    assert after == sink, "one that was under way when it opened is no further evidence"


@pytest.mark.parametrize("outcome", [Outcome.BAD_PAYLOAD, Outcome.RETRY_SLOWLY, Outcome.THROTTLED])
def test_any_answer_closes_the_breaker(outcome: Outcome) -> None:
    """A sink that refuses a delivery for what it is, is not down."""
    assert settled(failure(outcome), SinkState(breaker=Breaker(4)))[1].breaker == Breaker()


def test_a_restart_probes_a_parked_sink_but_waits_out_a_throttle() -> None:
    """A restart may be what the operator did about it; being asked to wait is no fault of ours."""
    _, parked = settled(failure(Outcome.PARK))
    assert parked.held_until(NOW) == at(300)
    assert parked.restarted(NOW).held_until(NOW) is None
    assert parked.restarted(NOW).probing
    _, paused = settled(failure(Outcome.THROTTLED, after=30))
    assert paused.restarted(NOW).held_until(NOW) == at(30)
    assert paused.restarted(at(-(10**6))).held_until(at(-(10**6))) == at(-(10**6) + 3600)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("", None), ("abc", None), ("0", None), ("-5", None), ("nan", None),
        ("inf", None), ("-inf", None), ("30", 30), (" 1.5 ", 1.5), ("999999999", 3600), ("1e9", 3600),
        (format_datetime(at(90), usegmt=True), 90), (format_datetime(at(-90), usegmt=True), None),
        (format_datetime(at(10**7), usegmt=True), 3600), ("Sun, 22 Nov 2026 12:00:09 -0000", 9),
        ("Sun, 99 Nov 2026 12:00:09 GMT", None), ("Mon, 1 Jan 0001 00:00:00 +2359", None),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds, fractions and dates are honoured up to an hour; nonsense and the past are not."""
    wanted = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(header, NOW) == wanted


def test_backoff_grows_with_jitter() -> None:
    """No two sinks are in step, and none waits less than half."""
    assert backoff(4, 0.0) == timedelta(seconds=8)
    assert backoff(4, 1.0) == timedelta(seconds=16)
