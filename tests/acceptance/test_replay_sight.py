"""What was not seen as it happened: before the first start, across restarts, behind an outage."""

from tests.acceptance.timelines import (
    CUT,
    DEGRADED,
    FIRING,
    FOUND,
    LOST,
    LOW,
    NONE,
    OK,
    QUIET_LOW,
    STALLED,
    START,
    ZERO_PODS,
    Timeline,
    closed,
    down,
    end,
    gone,
    listed,
    restart,
    see,
    table,
    told,
    up,
)
from tests.deployments import web

SIGHTS: dict[str, Timeline] = {
    "two hours old: at once": ([listed(0, web(0, turned=-7200))],
        ["0 A degraded none_available critical since -7200"]),
    "twenty seconds old": ([listed(0, web(0, turned=-20))],
        ["10 A degraded none_available critical since -20"]),
    "dated in the future": ([listed(0, web(0, turned=500))],
        ["30 A degraded none_available critical since 0"]),
    "a condition that asserts no fault": ([listed(0, web(0, 1, turned=-7200))],
        ["60 A degraded none_available critical since 0"]),
    "stalled for five minutes": ([listed(0, STALLED)],
        ["0 A degraded rollout_stalled warning since -300"]),
    "a failure half a minute old": (
        [listed(0, web(1, updated=1, failure="exceeded quota", failed=-30))],
        ["30 A degraded pods_not_created warning since -3600"]),
    "only a start or a thaw believes a condition": ([START, see(10, web(0, turned=-7200))],
        ["40 A degraded none_available critical since 10"]),
    "healthy ones are no news": ([listed(0, OK, web(name="api"), ZERO_PODS)], []),
    "two at once": ([listed(0, web(0, turned=-50), web(1, name="api", turned=-90)), end(0)],
        ["0 A degraded none_available critical since -50",
         "0 B api degraded below_minimum warning since -90"]),
}  # fmt: skip

RESTARTS: dict[str, Timeline] = {
    "twenty times": ([START, see(10, LOW), *map(restart, range(15, 95, 4)), see(100, OK)],
        [DEGRADED, "160 A recovered below_minimum warning since 10"]),
    "a start that is stored stands": ([START, see(10, web(1, turned=5)), restart(30)], [DEGRADED]),
    "a later outage moves the hold": (
        [START, see(10, LOW), restart(20, away=30), see(40, web(1, turned=35))],
        ["95 A degraded below_minimum warning since 10"]),
    "the hold ran out while away": ([START, see(10, LOW), restart(20, away=100)],
        ["120 A degraded below_minimum warning since 10"]),
    "healed while away": ([*FIRING, restart(100, away=200), see(150, OK)],
        [DEGRADED, "360 A recovered below_minimum warning since 10"]),
    "deleted while away": ([*FIRING, restart(100, away=200), gone(150, LOW)],
        [DEGRADED, closed(300, "deleted")]),
    "recreated while away": (
        [*FIRING, restart(100, away=200), gone(150, LOW), see(160, web(uid="2"), "ADDED")],
        [DEGRADED, closed(300, "recreated")]),
    "ignored while away": ([*FIRING, restart(100, away=200), see(150, web(1, ignore="true"))],
        [DEGRADED, closed(300, "ignored")]),
    "down and up while away": ([START, restart(20, away=100), see(40, LOW), see(90, OK)], []),
    "down while away": ([START, restart(20, away=100), see(40, web(1, turned=40))],
        ["120 A degraded below_minimum warning since 40"]),
    "still down": ([*FIRING, restart(100, away=200)], [DEGRADED]),
    "clearing goes on": ([*FIRING, see(100, OK), restart(120)],
        [DEGRADED, "160 A recovered below_minimum warning since 10"]),
    "clearing ended while away": ([*FIRING, see(100, OK), restart(120, away=100)],
        [DEGRADED, "220 A recovered below_minimum warning since 10"]),
    "worse while away": ([*FIRING, restart(100, away=200), see(150, NONE)],
        [DEGRADED, "300 A updated none_available critical since 10"]),
    "silenced all along": ([START, see(10, QUIET_LOW), restart(100)],
        ["300 A degraded below_minimum warning since 10"]),
}  # fmt: skip

LOST_B, FOUND_B = LOST.replace("A", "B"), FOUND.replace("A", "B")
SIGHTLESS: dict[str, Timeline] = {
    "an outage": ([START, *CUT], [LOST, FOUND]),
    "an outage for good": ([START, down(100)], [LOST]),
    "a blip": ([START, down(100), up(130)], []),
    "two outages": ([START, *CUT, down(300), up(400)],
        [LOST, FOUND, "330 B cluster unreachable since 300", "420 B cluster restored since 300"]),
    "nothing is inferred": ([START, down(100), see(110, NONE), see(190, OK), up(200)],
        [LOST, FOUND]),
    "no hold runs out": ([START, see(50, LOW), *CUT],
        [LOST, FOUND, "225 B degraded below_minimum warning since 50"]),
    "no hold runs out, ever": ([START, see(50, LOW), down(100)], [LOST]),
    "a hold that is longer": ([START, see(50, web(1, degraded_for="5m")), *CUT],
        [LOST, FOUND, "350 B degraded below_minimum warning since 50"]),
    "healed behind it": ([START, see(50, LOW), down(100), see(150, OK), up(200)], [LOST, FOUND]),
    "down behind it": ([START, down(100), see(150, web(1, turned=150)), up(200)],
        [LOST, FOUND, "225 B degraded below_minimum warning since 150"]),
    "up and down again behind it": (
        [START, see(50, LOW), down(80), see(150, web(1, turned=150)), up(200)],
        ["120 A cluster unreachable since 90", "225 A cluster restored since 90",
            "225 B degraded below_minimum warning since 150"]),
    "up for too short a time behind it": (
        [START, see(50, LOW), down(100), see(150, web(1, turned=150)), up(200)],
        [LOST, FOUND, "225 B degraded below_minimum warning since 50"]),
    "recovered behind it": ([*FIRING, down(100), see(150, OK), up(200)],
        [DEGRADED, LOST_B, FOUND_B, "285 A recovered below_minimum warning since 10"]),
    "clearing starts again": ([*FIRING, see(90, OK), *CUT],
        [DEGRADED, LOST_B, FOUND_B, "285 A recovered below_minimum warning since 10"]),
    "worse behind it": ([*FIRING, down(100), see(150, NONE), up(200)],
        [DEGRADED, LOST_B, FOUND_B, "225 A updated none_available critical since 10"]),
    "deleted behind it": ([*FIRING, down(100), gone(150, LOW), up(200)],
        [DEGRADED, LOST_B, FOUND_B, closed(225, "deleted")]),
    "restarted behind it": ([*FIRING, down(100), restart(150), up(200)],
        [DEGRADED, LOST_B, FOUND_B]),
    "a blip: the hold keeps its date": ([START, see(10, LOW), down(20), up(45)], [DEGRADED]),
    "a blip: the hold ran out in it": ([START, see(10, LOW), down(60), up(85)],
        ["85 A degraded below_minimum warning since 10"]),
    "a blip: the hold ran out and it had healed": (
        [START, see(10, LOW), down(60), see(80, OK), up(85)],
        []),
    "a blip at the very instant": ([START, see(40, LOW), down(100), up(130)],
        ["100 A degraded below_minimum warning since 40"]),
    "an outage at the very instant": ([START, see(40, LOW), *CUT],
        ["100 A degraded below_minimum warning since 40", LOST_B, FOUND_B]),
    "a blip changes no clearing": ([*FIRING, see(90, OK), down(100), up(130)],
        [DEGRADED, "150 A recovered below_minimum warning since 10"]),
    "a blip: the clearing ran out in it": ([*FIRING, see(75, OK), down(110), up(140)],
        [DEGRADED, "140 A recovered below_minimum warning since 10"]),
    "a blip: degraded in it, by its condition": (
        [START, down(100), see(110, web(1, turned=108)), up(130)],
        ["168 A degraded below_minimum warning since 108"]),
    "a blip: degraded in it, by first sight": (
        [listed(0, web(1, 1)), down(100), see(110, web(0, 1)), up(130)],
        ["190 A degraded none_available critical since 130"]),
    "a blip: worse in it": ([*FIRING, down(100), see(110, NONE), up(130)],
        [DEGRADED, "130 A updated none_available critical since 10"]),
    "it goes with a probe": ([START, down(105), up(200)], [LOST, FOUND]),
    "it comes with a probe": ([START, down(100), up(210)], [LOST, FOUND]),
    "it comes with the third probe": ([START, down(100), up(135)], []),
    "restarted before it was told": ([START, down(100), restart(102)], [LOST]),
    "away when it would have been told": ([START, down(100), restart(102, away=400), up(300)], []),
    "away when it ends": ([START, down(100), restart(150, away=100), up(200)],
        [LOST, "270 A cluster restored since 105"]),
    "a list behind it": ([START, down(100), listed(150, web(1, turned=150)), up(200)],
        [LOST, FOUND, "225 B degraded below_minimum warning since 150"]),
    "recreated behind it": (
        [*FIRING, down(100), gone(150, LOW), see(160, web(uid="2"), "ADDED"), up(200)],
        [DEGRADED, LOST_B, FOUND_B, closed(225, "recreated")]),
    "clearing started again, then a restart": ([*FIRING, see(90, OK), *CUT, restart(230)],
        [DEGRADED, LOST_B, FOUND_B, "285 A recovered below_minimum warning since 10"]),
    "clearing starts again, after a restart in it": (
        [*FIRING, see(90, OK), down(100), restart(150), up(200)],
        [DEGRADED, LOST_B, FOUND_B, "285 A recovered below_minimum warning since 10"]),
    "a heartbeat of its own": (
        [{"policy": {"interval": "10s", "failures": 2, "successes": 1}}, START, down(101), up(141)],
        ["120 A cluster unreachable since 110", "150 A cluster restored since 110"]),
}  # fmt: skip


@table(SIGHTS)
async def test_first_sight(steps, expected):
    """At the first start an outage counts from when its own condition says that it began."""
    assert await told(steps) == expected


@table(RESTARTS)
async def test_restarts(steps, expected):
    """A restart compares with what is stored, and tells only the differences."""
    assert await told(steps) == expected


@table(SIGHTLESS)
async def test_out_of_sight(steps, expected):
    """Out of sight the cluster is the one incident, and nothing is inferred from silence."""
    assert await told(steps) == expected
