"""Timelines through the real observer, heartbeat and store: who would have been told what, and when.

Written from docs and reference, not from the code: each table belongs to one rule.
"""

import json

import pytest

from tests.acceptance.timelines import (
    CUT,
    DEGRADED,
    FIRING,
    LOST,
    LOW,
    MALFORMED,
    NONE,
    OK,
    ONE_GONE,
    ONE_OK,
    QUIET_LOW,
    QUIET_OK,
    ROLLING,
    SHORT,
    STALLED,
    START,
    UNSEEN,
    ZERO_PODS,
    Timeline,
    closed,
    down,
    end,
    gone,
    lines,
    listed,
    restart,
    see,
    table,
    told,
    up,
)
from tests.deployments import Json, having, stamp, web
from watcher.replay import replay
from watcher.timeline import ReplayError

HOLDS: dict[str, Timeline] = {
    "below the minimum: a minute": ([START, see(10, LOW)], [DEGRADED]),
    "none available: half of it": ([START, see(10, NONE)],
        ["40 A degraded none_available critical since 10"]),
    "one replica: a minute": ([listed(0, ONE_OK), see(10, ONE_GONE)],
        ["70 A degraded none_available critical since 10"]),
    "rollout stalled: five seconds": ([START, see(5, ROLLING), see(10, STALLED)],
        ["15 A degraded rollout_stalled warning since 10"]),
    "rollout stalled for a second: a controller manager is back": (
        [START, see(60, ROLLING), see(720, STALLED), see(721, ROLLING), see(780, OK)],
        []),
    "worse meanwhile: sooner": ([START, see(10, LOW), see(20, NONE)],
        ["50 A degraded none_available critical since 10"]),
    "worse meanwhile: never later": ([START, see(10, LOW), see(60, NONE)],
        ["70 A degraded none_available critical since 10"]),
    "worse meanwhile: a hold of seconds": ([START, see(10, LOW), see(30, STALLED)],
        ["35 A degraded rollout_stalled warning since 10"]),
    "worse meanwhile: no hold left": (
        [{"policy": {"rollout_stalled_for": "0s"}}, START, see(10, LOW), see(30, STALLED)],
        ["30 A degraded rollout_stalled warning since 10"]),
    "milder meanwhile: its own hold": ([START, see(10, NONE), see(20, LOW)], [DEGRADED]),
    "worse and back": ([START, see(10, LOW), see(20, NONE), see(30, LOW)], [DEGRADED]),
    "healed in time": ([START, see(10, LOW), see(69, OK)], []),
    "healed at the very instant": ([START, see(10, LOW), see(70, OK)],
        [DEGRADED, "130 A recovered below_minimum warning since 10"]),
    "progressing cancels": ([START, see(10, LOW), see(30, SHORT), see(40, LOW)],
        ["100 A degraded below_minimum warning since 10"]),
    "an unobserved spec keeps it": (
        [START, see(10, LOW), see(30, UNSEEN), see(50, web(1, generation=2))],
        [DEGRADED]),
    "an unobserved spec blocks it": (
        [START, see(10, LOW), see(30, UNSEEN), see(100, web(1, generation=2))],
        ["100 A degraded below_minimum warning since 10"]),
    "unobserved, then healthy": (
        [START, see(10, LOW), see(30, UNSEEN), see(100, web(3, generation=2))],
        []),
    "unobserved, then rolling": (
        [START, see(10, LOW), see(30, UNSEEN), see(100, ROLLING), end(800)],
        []),
    "malformed blocks it": ([START, see(10, LOW), see(30, MALFORMED), see(100, LOW)],
        ["100 A degraded below_minimum warning since 10"]),
    "blocked and getting worse": ([START, see(10, LOW), see(30, MALFORMED), see(40, NONE)],
        ["70 A degraded none_available critical since 10"]),
    "critical has a longer hold: never later": (
        [{"policy": {"none_available_for": "2m"}}, START, see(10, LOW), see(30, NONE)],
        ["70 A degraded none_available critical since 10"]),
    "paused cancels": ([START, see(10, LOW), see(30, web(paused=True)), see(40, LOW)],
        ["100 A degraded below_minimum warning since 10"]),
    "a policy of its own": ([{"policy": {"degraded_for": "2m"}}, START, see(10, LOW)],
        ["130 A degraded below_minimum warning since 10"]),
}  # fmt: skip

UPDATES: dict[str, Timeline] = {
    "worse, and milder": ([START, see(10, LOW), see(100, NONE), see(200, LOW), see(300, OK)],
        [DEGRADED, "100 A updated none_available critical since 10",
         "200 A updated below_minimum warning since 10",
         "360 A recovered below_minimum warning since 10"]),
    "another reason": ([START, see(10, LOW), see(100, STALLED)],
        [DEGRADED, "100 A updated rollout_stalled warning since 10"]),
    "other counts are no news": (
        [listed(0, web(10, 10)), see(10, web(1, 10)), see(100, web(2, 10)), see(200, web(1, 10))],
        [DEGRADED]),
    "progress in between is no news": ([START, see(10, LOW), see(100, ROLLING), see(110, LOW)],
        [DEGRADED]),
    "progress that stops is": ([START, see(10, LOW), see(100, SHORT)],
        [DEGRADED, "1000 A updated no_progress warning since 10"]),
}  # fmt: skip

RECOVERIES: dict[str, Timeline] = {
    "healthy for a minute": ([START, see(10, LOW), see(100, OK)],
        [DEGRADED, "160 A recovered below_minimum warning since 10"]),
    "not long enough": ([START, see(10, LOW), see(100, OK), see(150, LOW), see(200, OK)],
        [DEGRADED, "260 A recovered below_minimum warning since 10"]),
    "progressing starts it again": (
        [START, see(10, LOW), see(100, OK), see(120, ROLLING), see(130, OK)],
        [DEGRADED, "190 A recovered below_minimum warning since 10"]),
    "unknown starts it again": (
        [START, see(10, LOW), see(100, OK), see(120, MALFORMED), see(130, OK)],
        [DEGRADED, "190 A recovered below_minimum warning since 10"]),
    "an unobserved spec starts it again": (
        [START, see(10, LOW), see(100, OK), see(120, UNSEEN), see(130, web(3, generation=2))],
        [DEGRADED, "190 A recovered below_minimum warning since 10"]),
    "healthy again is no new start": (
        [START, see(10, LOW), see(100, OK), see(120, web(4, 3, updated=4))],
        [DEGRADED, "160 A recovered below_minimum warning since 10"]),
    "an unobserved spec never recovers": (
        [START, see(10, LOW), see(100, web(3, generation=2, observed=1)), end(900)],
        [DEGRADED]),
    "malformed never recovers": ([START, see(10, LOW), see(100, MALFORMED)], [DEGRADED]),
    "down again at the very instant": ([START, see(10, LOW), see(100, OK), see(160, LOW)],
        [DEGRADED, "160 A recovered below_minimum warning since 10",
         "220 B degraded below_minimum warning since 160"]),
    "a second outage is a second incident": ([START, see(10, LOW), see(100, OK), see(300, NONE)],
        [DEGRADED, "160 A recovered below_minimum warning since 10",
         "330 B degraded none_available critical since 300"]),
}  # fmt: skip


CLOSINGS: dict[str, Timeline] = {
    "deleted": ([*FIRING, gone(100, LOW)], [DEGRADED, closed(100, "deleted")]),
    "deleted before anybody was told": ([START, see(10, LOW), gone(60, LOW)], []),
    "deleted while clearing": ([*FIRING, see(100, OK), gone(120, OK)],
        [DEGRADED, closed(120, "deleted")]),
    "being deleted": ([*FIRING, see(100, web(1, deleting=True)), gone(110, web(1, deleting=True))],
        [DEGRADED, closed(100, "deleted")]),
    "being deleted before anybody was told": ([*FIRING, see(30, web(1, deleting=True))], []),
    "missing in a list": ([*FIRING, listed(100)], [DEGRADED, closed(100, "deleted")]),
    "another uid": ([*FIRING, see(100, web(uid="2"))], [DEGRADED, closed(100, "recreated")]),
    "another uid in a list": ([*FIRING, listed(100, web(uid="2"))],
        [DEGRADED, closed(100, "recreated")]),
    "another uid, degraded too": ([*FIRING, see(100, web(1, uid="2"))],
        [DEGRADED, closed(100, "recreated"), "160 B degraded below_minimum warning since 100"]),
    "another uid, and a restart": ([*FIRING, see(100, web(uid="2")), restart(200)],
        [DEGRADED, closed(100, "recreated")]),
    "another uid, and an outage": (
        [*FIRING, see(100, web(uid="2")), down(200), up(300)],
        [DEGRADED, closed(100, "recreated"), "240 B cluster unreachable since 210",
         "315 B cluster restored since 210"]),
    "another uid after its deletion": ([*FIRING, gone(100, LOW), see(101, web(uid="2"), "ADDED")],
        [DEGRADED, closed(100, "deleted")]),
    "scaled to zero, once the pods are gone": (
        [*FIRING, see(100, web(0, 0, total=2)), see(120, ZERO_PODS)],
        [DEGRADED, closed(120, "scaled_to_zero")]),
    "paused": ([*FIRING, see(100, web(paused=True))], [DEGRADED, closed(100, "paused")]),
    "paused and still short": ([*FIRING, see(100, web(1, paused=True))], [DEGRADED]),
    "ignored": ([*FIRING, see(100, web(1, ignore="true"))], [DEGRADED, closed(100, "ignored")]),
}  # fmt: skip

ANNOTATIONS: dict[str, Timeline] = {
    "degraded-for": ([START, see(10, web(1, degraded_for="5m"))],
        ["310 A degraded below_minimum warning since 10"]),
    "degraded-for 0s": ([START, see(10, web(1, degraded_for="0s"))],
        ["10 A degraded below_minimum warning since 10"]),
    "degraded-for that is none": ([START, see(10, web(1, degraded_for="soon"))], [DEGRADED]),
    "ignored from the start": ([listed(0, web(0, ignore="true")), see(90, web(0, ignore="true"))],
        []),
    "ignored before anybody was told": ([START, see(10, LOW), see(30, web(1, ignore="true"))], []),
    "ignore taken off": ([START, see(10, web(1, ignore="true")), see(200, LOW)],
        ["260 A degraded below_minimum warning since 10"]),
    "ignore that is neither": ([START, see(10, web(1, ignore="perhaps"))], [DEGRADED]),
    "ignore false": ([START, see(10, web(1, ignore="false"))], [DEGRADED]),
    "silenced, and open when that ends": ([START, see(10, QUIET_LOW), see(400, OK)],
        ["300 A degraded below_minimum warning since 10",
         "460 A recovered below_minimum warning since 10"]),
    "silenced, worse, and open when that ends": (
        [START, see(10, QUIET_LOW), see(100, web(0, silence_until=stamp(300)))],
        ["300 A degraded none_available critical since 10"]),
    "silenced, and healed meanwhile": ([START, see(10, QUIET_LOW), see(100, QUIET_OK)], []),
    "silenced, and deleted meanwhile": ([START, see(10, QUIET_LOW), gone(200, LOW)], []),
    "silence taken off": ([START, see(10, QUIET_LOW), see(200, LOW)],
        ["200 A degraded below_minimum warning since 10"]),
    "silence taken off as it gets worse": ([START, see(10, QUIET_LOW), see(200, NONE)],
        ["200 A degraded none_available critical since 10"]),
    "silence ends out of sight": ([START, see(10, QUIET_LOW), down(290), up(320)],
        ["320 A degraded below_minimum warning since 10"]),
    "silence ends out of sight, where it healed": (
        [START, see(10, QUIET_LOW), down(290), see(310, QUIET_OK), up(320)],
        []),
    "silence ends while it heals": ([START, see(10, QUIET_LOW), see(290, QUIET_OK)], []),
    "silence ends while it heals, and it relapses": (
        [START, see(10, QUIET_LOW), see(290, QUIET_OK), see(310, QUIET_LOW)],
        ["310 A degraded below_minimum warning since 10"]),
    "silence ends while away": ([START, see(10, QUIET_LOW), restart(100, away=300)],
        ["400 A degraded below_minimum warning since 10"]),
    "silenced after it was told": ([*FIRING, see(100, web(3, silence_until=stamp(999)))],
        [DEGRADED, "160 A recovered below_minimum warning since 10"]),
    "told, then silenced while it gets worse": (
        [*FIRING, see(100, web(0, silence_until=stamp(400))),
         see(200, web(3, silence_until=stamp(400)))],
        [DEGRADED, "260 A recovered none_available critical since 10"]),
    "silence that is over": ([START, see(10, web(1, silence_until=stamp(50)))], [DEGRADED]),
    "silence that is no time": ([START, see(10, web(1, silence_until="tomorrow"))], [DEGRADED]),
}  # fmt: skip


def version(obj: Json, number: int) -> Json:
    return having(json.loads(json.dumps(obj)), metadata__resourceVersion=str(number))


def bare(available: int, name: str = "web") -> Json:
    """As somebody writes one by hand."""
    obj = web(available, name=name)
    obj["metadata"] = {"name": name, "namespace": "shop", "resourceVersion": ""}
    return obj


NOISE: dict[str, Timeline] = {
    "the same object again": ([START, *(see(t, version(LOW, 2000)) for t in (10, 20, 69, 71, 90))],
        [DEGRADED]),
    "an older version": ([START, see(10, version(LOW, 2000)), see(30, version(OK, 1999))],
        [DEGRADED]),
    "the same list again": ([START, see(10, LOW), *(listed(t, LOW) for t in (20, 69, 80))],
        [DEGRADED]),
    "labels and annotations": (
        [START, see(10, LOW), see(20, having(web(1), metadata__labels={"a": "b"}))],
        [DEGRADED]),
    "garbage beside it": (
        [listed(0, OK, having(web(name="api"), status__conditions="x")), see(10, LOW)],
        [DEGRADED]),
    "the deletion of a stranger": ([START, gone(5, web(name="api")), see(10, LOW)], [DEGRADED]),
    "a clean rollout": (
        [START, see(10, web(3, generation=2, observed=1)),
         see(11, web(3, updated=0, total=3, generation=2, reason="NewReplicaSetCreated")),
         see(12, web(2, updated=1, total=4, generation=2, reason="ReplicaSetUpdated")),
         see(30, web(3, updated=2, total=4, generation=2, reason="ReplicaSetUpdated")),
         see(50, web(3, generation=2))],
        []),
    "a clean Recreate rollout": (
        [listed(0, web(recreate=True)), see(10, web(3, updated=0, total=3, recreate=True)),
         see(11, web(0, updated=0, recreate=True)),
         see(12, web(0, recreate=True, reason="ReplicaSetUpdated")), see(310, web(recreate=True))],
        []),
    "no uid, no version": (
        [listed(0, bare(3), bare(3, "api")), see(10, bare(1)), see(20, bare(3, "api"))],
        [DEGRADED]),
    "an outage up to and with the end": ([START, down(100), end(135)], [LOST]),
    "an outage not beyond it": ([START, down(100), end(134)], []),
    "up to and with the end": ([START, see(10, LOW), end(70)], [DEGRADED]),
    "not beyond it": ([START, see(10, LOW), end(69.9)], []),
    "before second 0": ([listed(-60, OK), see(-50, LOW)],
        ["10 A degraded below_minimum warning since -50"]),
    "clock times": ([listed(stamp(0), OK), see(stamp(10), LOW)], [DEGRADED]),
    "a clock": ([{"clock": stamp(-100)}, START, see(110, LOW)],
        ["170 A degraded below_minimum warning since 10"]),
}  # fmt: skip


@table(HOLDS)
async def test_holds(steps, expected):
    """Nobody is told before a verdict has held, and then with its true start."""
    assert await told(steps) == expected


@table(UPDATES)
async def test_updates(steps, expected):
    """Another reason or severity updates the one incident; other numbers are no news."""
    assert await told(steps) == expected


@table(RECOVERIES)
async def test_recoveries(steps, expected):
    """Recovered is told after healthy has held, and nothing else ends an outage."""
    assert await told(steps) == expected


@table(CLOSINGS)
async def test_closings(steps, expected):
    """What ends otherwise is closed, with the reason."""
    assert await told(steps) == expected


@table(ANNOTATIONS)
async def test_annotations(steps, expected):
    """A Deployment's own annotations are obeyed, and ignored where they make no sense."""
    assert await told(steps) == expected


@table(NOISE)
async def test_noise(steps, expected):
    """Doubles, relists, clean rollouts and odd notations change nothing."""
    assert await told(steps) == expected


async def test_printed_line():
    """A line has these keys, with these words and times."""
    printed = [line async for line in replay(lines([START, see(10, LOW), gone(80, LOW)]))]
    incident = printed[0]["incident"]
    common = {"namespace": "shop", "deployment": "web", "reason": "below_minimum"}
    common |= {"severity": "warning", "since": "2026-01-01T00:00:10Z", "incident": incident}
    assert printed == [
        {"at": 70.0, "event": "degraded", **common},
        {"at": 80.0, "event": "closed", **common, "resolution": "deleted"},
    ]


async def test_printed_cluster_line():
    """A cluster's line names the cluster in place of a Deployment."""
    printed = [line async for line in replay(lines([START, *CUT]))]
    assert [line["event"] for line in printed] == ["unreachable", "restored"]
    for line in printed:
        assert "cluster" in line
        assert not {"namespace", "deployment"} & line.keys()


BAD_LINES: dict[str, tuple[list[str], int]] = {
    "no JSON": (['{"at": 0, "type": "LIST", "items": []}', "{"], 2),
    "no object": (["[]"], 1),
    "an unknown type": (['{"at": 0, "type": "BOOKMARK"}'], 1),
    "no time": (['{"type": "END"}'], 1),
    "a time that is none": (['{"at": "noon", "type": "END"}'], 1),
    "a time without its zone": (['{"at": "2026-01-01T00:00:00", "type": "END"}'], 1),
    "a time that is true": (['{"at": true, "type": "END"}'], 1),
    "time goes back": (['{"at": 5, "type": "API_DOWN"}', "", '{"at": 4, "type": "END"}'], 3),
    "no items": (['{"at": 0, "type": "LIST"}'], 1),
    "a negative absence": (['{"at": 0, "type": "RESTART", "down": -1}'], 1),
    "an unknown policy": (['{"policy": {"degraded": "5s"}}'], 1),
    "a policy that is no duration": (['{"policy": {"degraded_for": "soon"}}'], 1),
    "a policy that comes late": (['{"at": 0, "type": "END"}', '{"policy": {}}'], 2),
}


@pytest.mark.parametrize(("text", "number"), BAD_LINES.values(), ids=BAD_LINES.keys())
async def test_bad_lines(text, number):
    """A line that cannot be used is named by its number, before anything is run."""
    with pytest.raises(ReplayError, match=f"^timeline:{number}: "):
        _ = [line async for line in replay(text)]


async def test_nothing_at_all():
    """An empty timeline prints nothing."""
    assert [line async for line in replay([])] == []
