"""How long a watch is asked for, by how those before it ended."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from watcher.cluster.lifetime import End, Lifetime
from watcher.cluster.transport import Timings

START = datetime(2026, 3, 1, tzinfo=UTC)
USUAL = 300


class Scope:
    """What one scope's watches have taught, on a clock of its own."""

    def __init__(self) -> None:
        self.now = START
        self.learned = Lifetime(Timings(), lambda low, high: high)

    def ends(self, *ends: End) -> "Scope":
        for end in ends:
            self.now += timedelta(seconds=end.age)
            self.learned.learn(end, self.now)
        return self

    def live(self, cut_after: float, hours: float, headers_after: float = 0) -> "Scope":
        """As a server behind something that cuts at an age: in order if it is asked for less."""
        until = self.now + timedelta(hours=hours)
        while self.now < until:
            seconds = self.asked
            self.ends(cut(cut_after) if seconds >= cut_after else ended(seconds, headers_after))
        return self

    @property
    def asked(self) -> int:
        return self.learned.ask()[0]


def cut(age: float, silence: float | None = None, headers_after: float | None = 0) -> End:
    return End(age, age if silence is None else silence, headers_after, cut=True)


def ended(age: float, headers_after: float = 0) -> End:
    return End(age, 1.5, headers_after, orderly=True)


def silent(age: float, silence: float = 70) -> End:
    return End(age, silence, 0, silent=True)


SHUT = End(30, 30, None)
"""No headers came in time."""


@pytest.mark.parametrize(
    ("ends", "asked"),
    [
        pytest.param([], USUAL, id="nothing known"),
        pytest.param([cut(35)], USUAL, id="one cut may be chance"),
        pytest.param([cut(35), cut(36)], 26, id="two at about the same age"),
        pytest.param([cut(50), cut(50)], 37, id="two at 50 s"),
        pytest.param([cut(12), cut(12)], 10, id="never under ten seconds"),
        pytest.param([cut(9), cut(9)], USUAL, id="what hardly lived teaches nothing"),
        pytest.param([cut(130, 50), cut(75, 50)], 37, id="after the same silence"),
        pytest.param([cut(130, 3), cut(75, 3)], USUAL, id="a short silence is no reason"),
        pytest.param([cut(290, 50), cut(290, 50)], 217, id="age before silence"),
        pytest.param([cut(290, 50), cut(290, 50), cut(110, 50)], 37, id="which it was after all"),
        pytest.param([cut(35), cut(80)], USUAL, id="neither"),
        pytest.param([cut(35), ended(300), cut(35)], USUAL, id="one outlived it in between"),
        pytest.param([cut(130, 50), ended(100), cut(75, 50)], 37, id="none outlived it"),
        pytest.param([cut(200), cut(200), cut(60), cut(60)], 45, id="narrower"),
        pytest.param([silent(70), silent(130)], 52, id="two that fell silent"),
        pytest.param([ended(35), ended(35)], USUAL, id="an orderly end is no cut"),
        pytest.param([SHUT], USUAL, id="one without headers may be chance"),
        pytest.param([SHUT, ended(300), SHUT], USUAL, id="not in a row"),
        pytest.param([SHUT, SHUT], 25, id="two without headers"),
        pytest.param([cut(20, headers_after=20)] * 2, 15, id="headers that come with the cut"),
    ],
)
def test_asks_for_as_long_as_watches_can_live(ends: Sequence[End], asked: int) -> None:
    """Three quarters of the age, or of the silence, after which two were cut off."""
    assert Scope().ends(*ends).asked == asked


def test_a_cut_that_stays_is_met_ever_less_often() -> None:
    """It asks for longer after an hour, meets it, and waits twice as long the next time, up to a day."""
    scope, met = Scope(), list[float]()
    while scope.now < START + timedelta(days=3):
        asked = scope.asked
        scope.ends(cut(35) if asked >= 35 else ended(asked))
        if asked >= 35:
            met.append((scope.now - START).total_seconds() / 3600)
    gaps = [round(later - former) for former, later in pairwise(met)]
    assert gaps == [0, 1, 2, 4, 8, 16, 24]


def test_a_cut_that_is_gone_is_forgotten() -> None:
    """A third more each hour, until it is as if nothing had been."""
    scope = Scope().live(35, hours=0.5).live(1000, hours=6)
    assert 100 < scope.asked < USUAL
    assert scope.learned.shortened_by == "cut"
    assert scope.live(1000, hours=4).asked == USUAL
    assert scope.learned.obstacle == ""
    assert scope.ends(cut(35)).asked == USUAL


def test_answers_that_are_held_back_are_so_until_headers_come_at_once() -> None:
    """However long that takes: each comes with its end. After an hour of prompt ones it is over."""
    scope = Scope().ends(SHUT, SHUT)
    assert (scope.learned.suspected, scope.learned.wants_list) == (True, True)
    assert scope.learned.withheld is False, "the list has to tell first"
    scope.learned.hold_back(scope.now)
    scope.live(1000, hours=48, headers_after=25)
    assert (scope.asked, scope.learned.shortened_by) == (25, "withheld")
    scope.live(1000, hours=0.9)
    assert scope.learned.shortened_by == "withheld"
    assert scope.live(1000, hours=0.2).asked == 33
    assert scope.learned.obstacle == ""


def test_only_a_watch_without_headers_calls_for_a_list() -> None:
    """Two of them, or one once it is known; what brought headers showed all there was."""
    scope = Scope().ends(SHUT)
    assert not scope.learned.wants_list
    assert scope.ends(SHUT).learned.wants_list
    scope.learned.hold_back(scope.now)
    assert not scope.ends(ended(25, 25)).learned.wants_list
    assert scope.ends(SHUT).learned.wants_list
    assert scope.ends(cut(25, headers_after=25)).learned.wants_list


def test_a_failure_calls_for_a_list_only_where_a_watch_would_show_less() -> None:
    """A list shows at once what a watch that is held back shows at its end."""
    scope = Scope()
    scope.learned.fail()
    assert not scope.learned.wants_list
    scope.learned.hold_back(scope.now)
    scope.learned.fail()
    assert scope.learned.wants_list


def test_a_server_that_answers_no_list_holds_nothing_back() -> None:
    """Then two that were not answered prove nothing, unless it is known already."""
    scope = Scope().ends(SHUT, SHUT)
    scope.learned.acquit()
    assert (scope.asked, scope.learned.wants_list) == (USUAL, False)
    scope.ends(SHUT, SHUT)
    scope.learned.hold_back(scope.now)
    scope.learned.acquit()
    assert (scope.asked, scope.learned.wants_list) == (25, True)


def test_headers_may_take_as_long_as_their_watch() -> None:
    """Where they come with its end, they are waited for beyond it; elsewhere not as long."""
    scope = Scope().ends(cut(200), cut(200))
    assert scope.learned.ask() == (150, 30)
    assert scope.ends(SHUT, SHUT).learned.ask() == (25, 35)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        pytest.param(
            [cut(35)] * 2, "cuts watches off after 35 s, so each is asked for 26 s", id="age"
        ),
        pytest.param([cut(130, 50), cut(75, 50)], "after 50 s of silence, so", id="silence"),
        pytest.param([silent(70)] * 2, "nothing came on watches for 70 s, not even", id="silent"),
        pytest.param(
            [cut(20, headers_after=20)] * 2, "holds back what a watch shows", id="withheld"
        ),
    ],
)
def test_says_what_stands_between(ends: Sequence[End], words: str) -> None:
    """In the words of whoever can set it."""
    assert words in Scope().ends(*ends).learned.obstacle
    assert "docs/operations.md" in Scope().ends(*ends).learned.obstacle
