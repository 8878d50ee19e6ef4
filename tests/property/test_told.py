"""The watcher beside a model of the Deployment controller: what serves too little is told, what comes up is not."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from tests.acceptance.timelines import end, gone, listed, see, told
from tests.controller import Change, Controller, Pods
from tests.deployments import Json

HALF_AN_HOUR, HALF_OF_IT, GRACE, LASTS = 1800, 900, 600, 3000
OPENINGS, ENDS = ("degraded", "flapping"), ("recovered", "closed")


@dataclass
class Judge:
    """The seconds of the last half hour in which too little served, and nothing excused that."""

    desired: int
    served: bool
    short: deque[bool] = field(default_factory=lambda: deque(maxlen=HALF_AN_HOUR))
    best: tuple[int, ...] = ()
    moved: int = 0
    raised: int = -GRACE
    version: tuple[int, int] = (1, 1)

    def see(self, c: Controller) -> bool:
        """Take in a second; gives whether somebody has to know by now.

        Excused is what was paused before it served, is wanted at zero, was raised within the grace, or
        rolls out and has come farther than ever within its progressDeadlineSeconds.
        """
        if (c.uid, c.version) != self.version:
            self.served &= c.uid == self.version[0]
            self.version, self.best, self.moved = (c.uid, c.version), c.level, c.now
        self.best = self.best or c.level
        if any(count > most for count, most in zip(c.level, self.best, strict=True)):
            self.moved, self.best = c.now, tuple(map(max, c.level, self.best))
        if c.desired > self.desired:
            self.raised = c.now
        self.desired = c.desired
        self.served |= c.serving >= max(c.floor, 1)
        excused = (
            c.desired == 0
            or (c.paused and not self.served)
            or c.now - self.raised < GRACE
            or (not c.complete and c.now - self.moved < c.deadline)
        )
        self.short.append(not excused and (c.serving == 0 or c.serving < c.floor))
        return sum(self.short) > HALF_OF_IT


def play(c: Controller, changes: Sequence[Change]) -> tuple[list[Json], list[int]]:
    """What the API shows, and the seconds by which somebody has to know."""
    judge, shown = Judge(c.desired, c.running), c.object() if c.running else None
    steps, must = [listed(0, *filter(None, [shown]))], []
    for now in c.run(changes, LASTS):
        obj = c.object()
        if shown is not None and obj["metadata"]["uid"] != shown["metadata"]["uid"]:
            steps.append(gone(now, shown))
            shown = None
        if obj != shown:
            steps.append(see(now, obj, "MODIFIED" if shown else "ADDED"))
        shown = obj
        if judge.see(c):
            must.append(now)
    return [*steps, end(LASTS)], must


def open_at(lines: Sequence[str]) -> Iterator[tuple[float, float]]:
    """From when to when an incident is open."""
    opened: float | None = None
    for line in lines:
        at, _, edge, *_ = line.split()
        if edge in OPENINGS:
            opened = float(at)
        elif edge in ENDS and opened is not None:
            yield opened, float(at)
            opened = None
    if opened is not None:
        yield opened, LASTS


SECONDS = st.sampled_from([1, 3, 8, 20, 25, 40, 55, 70, 150, 290])
WELL, DEAD = Pods(), Pods(up=0)
LOOPS = st.builds(Pods, delay=st.sampled_from([1, 5, 10, 30, 120]), up=SECONDS, down=SECONDS)
BAD = st.lists(LOOPS | st.sampled_from([WELL, DEAD]), min_size=1, max_size=4).map(tuple)
SLOW = st.builds(Pods, delay=st.sampled_from([1, 5, 30, 120])).map(lambda pods: (pods,))
WHAT = {
    "desired": st.integers(1, 10),
    "recreate": st.booleans(),
    "unavailable": st.integers(0, 10),
    "surge": st.integers(1, 3),
    "min_ready": st.sampled_from([0, 0, 10, 30]),
    "running": st.booleans(),
}
GAPS = st.sampled_from([60, 300])
KINDS = st.sampled_from(
    ["rollout", "rollout", "crash", "crash", "replace", "scale", "pause", "resume"]
)
# An example takes a third of a second, so that shrinking one would take minutes.
UNSHRUNK = settings(
    max_examples=settings().max_examples // 3,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def changes(news: Sequence[tuple[int, str, tuple[Pods, ...], int]]) -> list[Change]:
    """One after the other."""
    times = accumulate(gap for gap, *_ in news)
    return [Change(at, *what[1:]) for at, what in zip(times, news, strict=True)]


@UNSHRUNK
@given(
    st.fixed_dictionaries({**WHAT, "pods": st.just((WELL,)) | BAD}),
    st.lists(st.tuples(GAPS, KINDS, BAD, st.integers(0, 10)), min_size=1, max_size=3),
)
def test_whatever_serves_too_little_is_told(what, news):
    """More than half of 30 minutes below the floor, unexcused: an incident is open by then."""
    steps, must = play(Controller(**what), changes(news))
    event(f"must be told: {bool(must)}")
    if must:
        lines = asyncio.run(told(steps))
        known = list(open_at(lines))
        missed = [t for t in must if not any(a <= t <= b + HALF_AN_HOUR for a, b in known)]
        assert not missed, lines


@UNSHRUNK
@given(
    st.fixed_dictionaries({**WHAT, "pods": SLOW}),
    st.lists(
        st.tuples(GAPS, st.sampled_from(["rollout", "replace", "scale"]), SLOW, st.integers(0, 10)),
        min_size=1,
        max_size=3,
    ),
)
def test_what_comes_up_is_not_told(what, news):
    """Clean rollouts, scalings and replacements tell nobody, whatever the strategy."""
    steps, _ = play(Controller(**what), changes(news))
    assert asyncio.run(told(steps)) == []
