"""The state machine under any sequence of verdicts, and the whole follower under any timeline."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, groupby, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.acceptance.timelines import down, end, gone, listed, restart, see, told, up
from tests.deployments import ZERO, Json, having, stamp, web
from watcher.core import flapping
from watcher.core.events import ENDS, OPENINGS, Transition
from watcher.core.model import Assessment, Health, Severity, Subject
from watcher.core.phases import Clearing, Firing, History, Phase
from watcher.core.policy import Flapping, HealthPolicy
from watcher.core.transitions import STEADY, deadline, expire, observe

# The machine by itself

BELOW = Assessment(Health.DEGRADED, "below_minimum", "", Severity.WARNING)
NONE = Assessment(Health.DEGRADED, "none_available", "", Severity.CRITICAL)
STALLED = Assessment(Health.DEGRADED, "rollout_stalled", "", Severity.WARNING)
HOLDS = {"below_minimum": 60, "none_available": 30, "rollout_stalled": 0}
SHORT = {"below_minimum", "none_available"}
"""Reasons with which serving is below the floor."""
VERDICTS = [
    BELOW, NONE, STALLED,
    *(Assessment(h) for h in Health if h is not Health.DEGRADED),
    Assessment(Health.PROGRESSING, "spec_not_observed"),
]  # fmt: skip
SUBJECT = Subject("c", "n", "d", "u")
GAPS = st.sampled_from([1, 2, 10, 29, 30, 31, 59, 60, 61, 200, 900, 2000])
POLICIES = st.builds(
    HealthPolicy,
    recovered_for=st.sampled_from([timedelta(0), timedelta(seconds=60)]),
    flapping=st.builds(Flapping, cycles=st.integers(1, 3), episodes=st.integers(2, 6)),
)
Course = Sequence[tuple[int, Assessment]]
"""Verdicts, each with the seconds since the one before."""
COURSES = st.lists(st.tuples(GAPS, st.sampled_from(VERDICTS)), max_size=20)


def run(
    course: Course, policy: HealthPolicy, ticks: Iterable[int] = (), again: int = 1
) -> tuple[Phase, list[Transition]]:
    """Drive the machine: at each instant what is due first, then the verdict, `again` times.

    Between deadlines it is woken at each of `ticks`, for nothing.
    """
    phase: Phase = STEADY
    edges: list[Transition] = []
    wakes: list[tuple[int, Assessment | None]] = [(at, None) for at in (*ticks, 10**6)]
    wakes += zip(accumulate(gap for gap, _ in course), (v for _, v in course), strict=True)
    for at, verdict in sorted(wakes, key=lambda wake: wake[0]):
        now = ZERO + timedelta(seconds=at)
        while (due := deadline(phase)) is not None and due <= now:
            phase, edge = expire(phase, now, policy, SUBJECT)
            edges += filter(None, [edge])
        for news in [verdict] * again if verdict is not None else []:
            hold = timedelta(seconds=HOLDS.get(news.reason, 0))
            phase, edge = observe(
                phase, news, now, policy, SUBJECT, hold=hold, short=news.reason in SHORT
            )
            edges += filter(None, [edge])
    return phase, edges


@given(COURSES, POLICIES, st.lists(st.integers(0, 20_000), max_size=20))
def test_extra_ticks(course, policy, ticks):
    """When, and how often, the loop wakes up changes nothing."""
    assert run(course, policy, ticks) == run(course, policy)


@given(COURSES, POLICIES, st.integers(2, 3))
def test_the_same_verdict_again(course, policy, again):
    """A verdict that is passed again at once changes nothing."""
    assert run(course, policy, again=again) == run(course, policy)


@given(COURSES, POLICIES)
def test_alternation(course, policy):
    """Openings and ends alternate, each end is its opening's, and sequences count up by one."""
    phase, edges = run(course, policy)
    is_open = isinstance(phase, Firing | Clearing)
    for before, after in pairwise(edges):
        assert (before.edge in ENDS) == (after.edge in OPENINGS)
        assert before.at <= after.at
    assert not edges or edges[0].edge in OPENINGS
    assert sum(e.edge in OPENINGS for e in edges) == sum(e.edge in ENDS for e in edges) + is_open
    for _, same in groupby(edges, key=lambda e: e.incident.id):
        assert all(e.incident.sequence == n for n, e in enumerate(same, 1))


@given(COURSES, POLICIES)
def test_no_opening_before_its_hold(course, policy):
    """Nothing opens before the shortest hold of what was degraded since its start, or in all its
    falls of the window, if they are as many as flapping takes."""
    times = accumulate(gap for gap, _ in course)
    seen = [(ZERO + timedelta(seconds=t), v) for t, (_, v) in zip(times, course, strict=True)]
    for edge in run(course, policy)[1]:
        if edge.edge in OPENINGS:
            since = edge.incident.since
            held = [v for at, v in seen if since <= at <= edge.at and v.reason in HOLDS]
            hold = timedelta(seconds=min(HOLDS[v.reason] for v in held))
            if edge.at < since + hold:
                falls = falls_of(seen, edge.at, since - policy.flapping.window)
                assert edge.edge == "flapping"
                assert len(falls) >= policy.flapping.episodes
                assert sum(falls, timedelta(0)) >= hold


def falls_of(
    seen: Sequence[tuple[datetime, Assessment]], until: datetime, start: datetime
) -> list[timedelta]:
    """How long serving was below the floor, in each episode in which it was, from its verdicts alone."""
    falls: list[timedelta] = []
    began: datetime | None = None
    for (at, verdict), (then, _) in pairwise([*(s for s in seen if s[0] <= until), (until, BELOW)]):
        if verdict.health is not Health.DEGRADED:
            keeps = verdict.health is Health.UNKNOWN or verdict.reason == "spec_not_observed"
            began = began if keeps else None
        elif verdict.reason in SHORT and at >= start:
            if began is None:
                began = at
                falls.append(timedelta(0))
            falls[-1] += then - at
    return falls


@given(st.integers(1, 29), st.integers(1, 59), st.integers(1, 90), st.sampled_from([NONE, BELOW]))
def test_flaps_under_the_hold(down, up, count, verdict):
    """What comes and goes within its hold is told as soon as six times below the floor fill one."""
    course = [(up, verdict), (down, Assessment(Health.HEALTHY))] * count
    hold, window = HOLDS[verdict.reason], 1800
    edges = run(course, HealthPolicy())[1]
    fits = window // (up + down)  # so many before the present one began in the window
    for n in range(1, count + 1):
        before = min(n - 1, fits)
        left = max(0, hold - before * down)
        if before + 1 >= 6 and left <= down:
            at = ZERO + timedelta(seconds=n * up + (n - 1) * down + left)
            assert (edges[0].edge, edges[0].at) == ("flapping", at)
            told = edges[0].incident.flaps
            assert told is not None
            assert told.lasted == timedelta(seconds=before * down + left)
            assert told.times == before + 1
            return
    assert edges == []


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([NONE, STALLED])), max_size=300))
def test_a_history_is_bounded(blips):
    """However often it fell, what is kept does not grow, and no time is lost or made up."""
    limits = Flapping(cycles=1 << 30, episodes=9)
    history, fell = History(), []
    for n, (seconds, verdict) in enumerate(blips):
        start = ZERO + timedelta(seconds=4 * n)
        history = flapping.began(history, start, limits)
        history = flapping.weighed(history, verdict is NONE, start, start)
        history = flapping.over(history, start + timedelta(seconds=seconds))
        fell += [timedelta(seconds=seconds)] if verdict is NONE else []
    assert len(history.episodes) <= 10
    assert len(history.falls) <= 64
    assert sum(f.times for f in history.falls) == len(fell)
    assert sum((f.lasted for f in history.falls), timedelta(0)) == sum(fell, timedelta(0))


# The whole follower

STATES: dict[str, Json] = {
    "healthy": web(3),
    "short": web(2),
    "below": web(1),
    "none": web(0),
    "rolling": web(3, updated=1, total=4, reason="ReplicaSetUpdated"),
    "stalled": web(3, updated=1, total=4, reason="ProgressDeadlineExceeded", progressing="False"),
    "gap": web(0, recreate=True, reason="ReplicaSetUpdated"),
    "some in the gap": web(1, recreate=True, reason="ReplicaSetUpdated"),
    "unobserved": web(1, generation=2, observed=1),
    "malformed": having(web(), status__replicas=-1),
    "raised": web(3, 30),
    "raised, lost": web(1, 30),
    "zero": web(0, 0),
    "paused": web(3, paused=True),
    "paused, none": web(0, paused=True),
    "being deleted": web(1, deleting=True),
    "ignored": web(0, ignore="true"),
    "silenced": web(0, silence_until=stamp(400)),
    "silenced, healthy": web(3, silence_until=stamp(400)),
}
# Out of the way: a restart may put no_progress off, which is tested by itself.
PATIENT = {"policy": {"no_progress_for": "300d", "flapping": {"cycles": 2, "episodes": 3}}}
NEWS = st.tuples(
    st.sampled_from([1, 9, 20, 30, 60, 61, 100, 600]),
    st.sampled_from(["web", "api"]),
    st.sampled_from([*STATES, "gone", "recreated"]),
)
BLIND = st.tuples(st.just(60), st.just("blind"), st.sampled_from(["25", "200"]))


def timeline(news: Sequence[tuple[int, str, str]]) -> list[Json]:
    """Both healthy at first, then the news; every state has its own version and uid."""
    at, births = 0, {"web": 0, "api": 0}
    steps = [PATIENT, listed(0, *(_shown(STATES["healthy"], name, 0, 0) for name in births))]
    for version, (gap, name, what) in enumerate(news, 1):
        at += gap
        if name == "blind":
            steps += [down(at), up(at + int(what))]
            at += int(what) + 45  # seen again, and connected again
            continue
        if what == "recreated":
            births[name] += 1
        obj = _shown(STATES.get(what, STATES["healthy"]), name, births[name], version)
        steps.append(gone(at, obj) if what == "gone" else see(at, obj))
        births[name] += what == "gone"
    return [*steps, end(at + 2000)]


def _shown(state: Json, name: str, birth: int, version: int) -> Json:
    metadata = {"name": name, "uid": f"{name}-{birth}", "resourceVersion": str(version)}
    return {**state, "metadata": {**state["metadata"], **metadata}}


def restarted(steps: Sequence[Json], chances: Sequence[int]) -> list[Json]:
    """The same with restarts: so many seconds after a step, if that is before the next."""
    mixed = [steps[0]]
    for (step, after), chance in zip(pairwise(steps[1:]), [*chances, *[-1] * 99], strict=False):
        mixed.append(step)
        in_sight = step["type"] not in ("API_DOWN", "API_UP")
        if in_sight and chance >= 0 and step["at"] + chance <= after["at"]:
            mixed.append(restart(step["at"] + chance))
    return [*mixed, steps[-1]]


def outcome(steps: Sequence[Json]) -> list[str]:
    """What is told of a timeline."""
    return asyncio.run(told(steps))


WHOLE = settings(max_examples=settings().max_examples // 2)


@WHOLE
@given(st.lists(NEWS | BLIND, max_size=14), st.lists(st.integers(-1, 70), max_size=14))
def test_restarts(news, chances):
    """A restart between any two steps changes nothing."""
    steps = timeline(news)
    assert outcome(restarted(steps, chances)) == outcome(steps)


@WHOLE
@given(st.lists(NEWS | BLIND, max_size=14))
def test_replayed_events(news):
    """Row 32: each event once more: nothing more is told, and nothing at another time."""
    steps = timeline(news)
    again = [one for step in steps for one in ([step] * (2 if "object" in step else 1))]
    assert outcome(again) == outcome(steps)


@WHOLE
@given(st.lists(NEWS | BLIND, max_size=14))
def test_told_in_order(news):
    """An incident opens once, before all else of it, and ends at most once, after all else."""
    story: dict[str, list[str]] = {}
    for line in outcome(timeline(news)):
        _, letter, *words = line.split()
        story.setdefault(letter, []).append(words[words[0] in ("api", "cluster")])
    for edges in story.values():
        assert edges[0] in ("degraded", "flapping", "unreachable")
        assert not {"degraded", "flapping", "unreachable"} & {*edges[1:]}
        assert not {"recovered", "closed", "restored"} & {*edges[:-1]}


@WHOLE
@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from(["restart", "away", "blip"])), max_size=5
    )
)
def test_no_progress_is_never_sooner(events):
    """Restarts and blind windows put no_progress off by the blind time at least, never forward."""
    rolling = STATES["rolling"]
    at, blind = 10, 0
    steps = [listed(0, web(3)), see(10, rolling)]
    for gap, what in events:
        at += gap
        if at + 30 >= 910 + blind:
            break
        steps += {
            "restart": [restart(at)],
            "away": [restart(at, away=30)],
            "blip": [down(at), up(at + 30)],
        }[what]
        blind += 0 if what == "restart" else 30
        at += 0 if what == "restart" else 30
    (line,) = outcome(steps)
    assert "no_progress" in line
    assert float(line.split()[0]) >= 910 + blind
