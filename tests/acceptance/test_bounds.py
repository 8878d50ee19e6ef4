"""Crash loops, gaps that a strategy permits, and when it all began: what is told, at the latest."""

import copy

from tests.acceptance.following import followed
from tests.acceptance.timelines import (
    CUT,
    FOUND,
    LOST,
    LOW,
    OK,
    START,
    ZERO_PODS,
    Timeline,
    down,
    end,
    gone,
    lines,
    listed,
    restart,
    see,
    sent,
    table,
    told,
    up,
)
from tests.deployments import CREATED, Json, having, stamp, web
from watcher.cluster.decode import snapshot_from
from watcher.ports import Deleted, Listed, Opened
from watcher.timeline import read

IN_FLIGHT = "ReplicaSetUpdated"


def crash_loop(start: float, until: float, up: Json, down: Json) -> list[Json]:
    """A pod that is ready for 8 s, and is started again after 10, 20, … up to 290 s."""
    steps, at, pause = [], start, 10.0
    while at + pause + 8 < until:
        steps += [see(at + pause, up), see(at + pause + 8, down)]
        at, pause = at + pause + 8, min(pause * 2, 290)
    return steps


def new(available: int, desired: int = 3) -> Json:
    """Of a service that has never served."""
    return web(available, desired, reason=IN_FLIGHT, turned=CREATED + 1, moved=0)


def anew(available: int) -> Json:
    """After the Recreate rollout of one that had served."""
    return web(available, recreate=True, reason=IN_FLIGHT, generation=2, revision=2, turned=10)


REPLACING = [listed(0, web(recreate=True)), see(10, anew(0))]
TEN, NINE, EIGHT = (listed(0, web(10, 10, unavailable=2)), web(9, 10), web(8, 10, unavailable=2))
STUCK = "no_progress warning since 10"
CRASH_LOOPS: dict[str, Timeline] = {
    "a new service": (
        [listed(0), see(10, new(0), "ADDED"), *crash_loop(10, 5400, new(1), new(0)), end(5400)],
        ["920 A degraded no_progress critical since 10",
         "948 A updated no_progress warning since 10",
         "956 A updated no_progress critical since 10"]),
    "after a Recreate rollout": ([*REPLACING, *crash_loop(10, 900, anew(1), anew(0)), end(900)],
        ["310 A degraded none_available critical since 10"]),
    "one of ten": (
        [TEN, see(10, NINE), *crash_loop(10, 5400, web(10, 10), NINE), end(5400)],
        [f"910 A degraded {STUCK}"]),
    "one of ten, scaled down and up again and again": (
        [TEN, *(see(10 + 200 * n, web(9 - n % 2, 10 - n % 2, generation=n)) for n in range(10))],
        ["1310 A degraded no_progress warning since 410"]),
    "a rollout that goes on: each pod counts": (
        [START, *(see(10 + 600 * n, web(3, updated=n, total=4, reason=IN_FLIGHT)) for n in range(4)),
         end(2700)],
        []),
    "a slow recovery is progress": (
        [TEN, see(10, NINE), see(600, EIGHT), see(800, NINE), end(1690)], []),
    "its second lap is none": (
        [TEN, see(10, NINE), see(600, EIGHT), see(800, NINE), see(900, EIGHT), see(1000, NINE)],
        ["1700 A degraded no_progress warning since 800"]),
    "healthy for long enough: counted anew": (
        [TEN, see(10, NINE), see(800, web(10, 10)), see(860, NINE)],
        ["1760 A degraded no_progress warning since 860"]),
    "healthy for a moment less: not": (
        [TEN, see(10, NINE), see(800, web(10, 10)), see(859, NINE)], [f"910 A degraded {STUCK}"]),
    "due in a healthy moment: at the next fall": (
        [TEN, see(10, NINE), see(905, web(10, 10)), see(920, NINE)], [f"920 A degraded {STUCK}"]),
    "another version: counted anew": (
        [TEN, see(10, NINE), see(800, web(9, 10, generation=2, revision=2))],
        ["1700 A degraded no_progress warning since 800"]),
}  # fmt: skip

NONE = web(0)
TOLD = [
    "70 A degraded below_minimum warning since 10",
    "100 A updated none_available critical since 10",
]
WAVERING: dict[str, Timeline] = {
    "once": ([START, see(10, LOW), see(100, NONE), see(200, LOW)],
        [*TOLD, "200 A updated below_minimum warning since 10"]),
    "worse again: at once": ([START, see(10, LOW), see(100, NONE), see(200, LOW), see(210, NONE)],
        [*TOLD, "200 A updated below_minimum warning since 10",
         "210 A updated none_available critical since 10"]),
    "again and again: what is milder has to last": (
        [START, see(10, LOW), see(100, NONE), see(200, LOW), see(210, NONE),
         *(see(t, (LOW, NONE)[t // 30 % 2]) for t in range(240, 400, 30)), see(400, LOW)],
        [*TOLD, "200 A updated below_minimum warning since 10",
         "210 A updated none_available critical since 10",
         "460 A updated below_minimum warning since 10"]),
    "over a restart": (
        [START, see(10, LOW), see(100, NONE), see(200, LOW), see(210, NONE), see(400, LOW),
         restart(430)],
        [*TOLD, "200 A updated below_minimum warning since 10",
         "210 A updated none_available critical since 10",
         "460 A updated below_minimum warning since 10"]),
    "seldom": ([START, see(10, LOW), see(100, NONE), see(1000, LOW), see(1900, NONE), see(2800, LOW)],
        [*TOLD, "1000 A updated below_minimum warning since 10",
         "1900 A updated none_available critical since 10",
         "2800 A updated below_minimum warning since 10"]),
}  # fmt: skip

ONE, ONE_ROLLING = web(1, 1), web(0, 1, reason=IN_FLIGHT, generation=2)
RECREATING = web(0, recreate=True, reason=IN_FLIGHT, generation=2)
BY_310 = "310 A degraded none_available critical since 10"
BORN = web(0, uid="2", turned=CREATED + 5, reason="NewReplicaSetCreated", moved=11)
"""Created anew, and not up yet."""
BORN_AT_21 = having(copy.deepcopy(BORN), metadata__creationTimestamp=stamp(21))
TOTAL_LOSS: dict[str, Timeline] = {
    "one replica that may go": ([listed(0, ONE), see(10, ONE_ROLLING)], [BY_310]),
    "a Recreate rollout": ([listed(0, web(recreate=True)), see(10, RECREATING)], [BY_310]),
    "back in time": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(309, web(1, 1, generation=2))], []),
    "back for a moment": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(200, web(1, 1, generation=2)),
         see(210, ONE_ROLLING)],
        [BY_310]),
    "back for long enough": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(200, web(1, 1, generation=2)),
         see(260, ONE_ROLLING)],
        ["560 A degraded none_available critical since 260"]),
    "due while it is back for a moment": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(305, web(1, 1, generation=2)),
         see(320, ONE_ROLLING)],
        ["320 A degraded none_available critical since 10"]),
    "some serve": (
        [listed(0, web(recreate=True)), see(10, RECREATING), see(100, anew(1)), end(900)], []),
    "some served for long enough": (
        [listed(0, web(recreate=True)), see(10, RECREATING), see(100, anew(1)), see(160, anew(0))],
        ["460 A degraded none_available critical since 10"]),
    "another generation puts it off no more": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(200, web(0, 1, reason=IN_FLIGHT, generation=3))],
        [BY_310]),
    "out of sight is not counted": (
        [listed(0, ONE), see(10, ONE_ROLLING), down(100), up(130)],
        ["340 A degraded none_available critical since 10"]),
    "nor is an outage of the cluster": ([listed(0, ONE), see(10, ONE_ROLLING), *CUT],
        [LOST, FOUND, "410 B degraded none_available critical since 10"]),
    "nor is time away": ([listed(0, ONE), see(10, ONE_ROLLING), restart(100, away=50)],
        ["360 A degraded none_available critical since 10"]),
    "a restart": ([listed(0, ONE), see(10, ONE_ROLLING), restart(100), restart(250)], [BY_310]),
    "degraded-for lengthens it": (
        [listed(0, ONE), see(10, web(0, 1, reason=IN_FLIGHT, degraded_for="8m"))],
        ["490 A degraded none_available critical since 10"]),
    "and does not shorten it": (
        [listed(0, ONE), see(10, web(0, 1, reason=IN_FLIGHT, degraded_for="0s"))], [BY_310]),
    "a longer deadline lengthens it": (
        [listed(0, ONE), see(10, web(0, 1, reason=IN_FLIGHT, deadline=700))],
        ["710 A degraded none_available critical since 10"]),
    "a shorter one does not": (
        [listed(0, ONE), see(10, web(0, 1, reason=IN_FLIGHT, deadline=500))], [BY_310]),
    "nor does none at all": (
        [listed(0, ONE), see(10, web(0, 1, reason=IN_FLIGHT, deadline=2147483647))], [BY_310]),
    "paused meanwhile": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(20, web(0, 1, paused=True, generation=3)),
         see(50, web(0, 1, reason=IN_FLIGHT, generation=4))],
        ["350 A degraded none_available critical since 10"]),
    "wanted at zero meanwhile": (
        [listed(0, ONE), see(10, ONE_ROLLING), see(100, ZERO_PODS),
         see(200, web(0, 1, reason=IN_FLIGHT, generation=4))],
        ["800 A degraded none_available critical since 200"]),
    "from zero, a Recreate": (
        [listed(0, web(0, 0, recreate=True)), see(10, web(0, updated=0, recreate=True))],
        ["610 A degraded none_available critical since 10"]),
    "from zero, and up for a while": (
        [listed(0, ZERO_PODS), see(10, web(0, 1, reason=IN_FLIGHT)), see(20, web(1, 1)),
         see(700, ONE_ROLLING)],
        ["1000 A degraded none_available critical since 700"]),
    "raised, and then nothing": (
        [listed(0, ONE), see(5, web(1, 5, unavailable=5)), see(10, web(0, 5, unavailable=5))],
        [BY_310]),
    "never served": (
        [listed(0), see(10, new(0), "ADDED"), end(890)], []),
    "never served for long enough": (
        [listed(0), see(10, new(0), "ADDED"), see(20, new(1)), see(79, new(0)), end(890)], []),
    "served some before it was whole": (
        [listed(0), see(10, new(0), "ADDED"), see(20, new(1)), see(80, new(0)), end(900)],
        ["380 A degraded none_available critical since 10"]),
    "never seen to serve, by its condition": (
        [listed(0, web(0, recreate=True, reason=IN_FLIGHT, revision=2, turned=-100,
                    moved=-100))],
        ["200 A degraded none_available critical since -100"]),
    "a bound of its own": (
        [{"policy": {"nothing_serves_for": "2m"}}, listed(0, ONE), see(10, ONE_ROLLING)],
        ["130 A degraded none_available critical since 10"]),
    "replaced by force": (
        [START, gone(10, OK), see(11, BORN, "ADDED")], [BY_310]),
    "replaced by force, and back": (
        [START, gone(10, OK), see(11, BORN, "ADDED"), see(300, web(uid="2"))], []),
    "replaced by force in one go": (
        [START, see(10, BORN)], [BY_310]),
    "replaced by force twice": (
        [START, gone(10, OK), see(11, BORN, "ADDED"), gone(30, BORN), see(32, having(copy.deepcopy(BORN), metadata__uid="3"), "ADDED")],
        ["310 A degraded none_available critical since 10"]),
    "replaced by force, then a restart": (
        [START, gone(10, OK), see(11, BORN, "ADDED"), restart(100)], [BY_310]),
    "replaced by force, with restarts in between": (
        [START, gone(10, OK), restart(15), restart(18), see(20, BORN, "ADDED"), restart(100)],
        [BY_310]),
    "replaced by force while away": (
        [START, restart(10, away=50), gone(20, OK), see(21, BORN_AT_21, "ADDED")],
        ["360 A degraded none_available critical since 21"]),
    "replaced long after": (
        [START, gone(10, OK), see(311, BORN, "ADDED"), end(900)], []),
    "replaced what never served": (
        [listed(0), see(10, new(0), "ADDED"), gone(20, new(0)), see(21, BORN, "ADDED"), end(900)],
        []),
    "replaced what was wanted at zero": (
        [listed(0, ZERO_PODS), gone(10, ZERO_PODS), see(11, BORN, "ADDED"), end(900)], []),
}  # fmt: skip

STALLED_AT_NOTHING = web(
    0, 1, generation=2, reason="ProgressDeadlineExceeded", progressing="False", turned=-3600
)
BEGINNINGS: dict[str, Timeline] = {
    "a permitted gap": (
        [{"policy": {"nothing_serves_for": "1h"}}, listed(0, ONE), see(60, ONE_ROLLING),
         see(661, STALLED_AT_NOTHING), see(700, ONE)],
        ["666 A degraded rollout_stalled critical since 60",
         "760 A recovered rollout_stalled critical since 60"]),
    "the hold runs from the verdict": (
        [START, see(10, LOW), see(30, web(2)), see(50, LOW)],
        ["110 A degraded below_minimum warning since 10"]),
    "enough for a while": ([START, see(10, LOW), see(30, web(2)), see(90, LOW)],
        ["150 A degraded below_minimum warning since 90"]),
    "over a restart": (
        [START, see(10, LOW), see(30, web(2)), restart(40), see(50, LOW), restart(55)],
        ["110 A degraded below_minimum warning since 10"]),
    "over a restart while enough serves": (
        [START, see(10, LOW), see(30, web(2)), restart(80), see(95, LOW)],
        ["155 A degraded below_minimum warning since 95"]),
    "a first rollout": (
        [listed(0), see(10, new(0), "ADDED"), see(600, new(1))],
        ["1500 A degraded no_progress warning since 10"]),
    "a first rollout seen late": (
        [listed(0, web(0, reason=IN_FLIGHT, turned=CREATED + 3, moved=-200))],
        [f"700 A degraded no_progress critical since {CREATED + 3}"]),
    "no progress, with enough": ([START, see(10, web(2)), restart(300)],
        ["1200 A degraded no_progress warning since 10"]),
    "a blind minute is no later date": ([START, see(10, web(2)), down(100), up(130)],
        ["940 A degraded no_progress warning since 10"]),
}  # fmt: skip


@table(CRASH_LOOPS)
async def test_crash_loops(steps, expected):
    """Progress is what goes beyond the best: a pod that is ready for seconds puts nothing off."""
    assert await told(steps) == expected


@table(WAVERING)
async def test_wavering(steps, expected):
    """What changes again and again is told as often as it settles, and when it is at its worst."""
    assert await told(steps) == expected


async def test_wavering_is_no_alarm():
    """Getting worse calls somebody, and not again within a quarter of an hour."""
    steps, _ = WAVERING["worse again: at once"]
    assert [event.worsened for event in await sent(read(lines(steps)))] == [
        False,
        True,
        False,
        False,
    ]


@table(TOTAL_LOSS)
async def test_total_loss(steps, expected):
    """Nothing serves for five minutes at most, whatever permits it."""
    assert await told(steps) == expected


@table(BEGINNINGS)
async def test_beginnings(steps, expected):
    """What is told is dated by its true start."""
    assert await told(steps) == expected


async def test_what_is_gone_is_kept_for_a_successor(tmp_path):
    """For so long and no longer; while the store refuses, until it takes that."""
    mine, another = snapshot_from(OK, "prod"), snapshot_from(web(name="api"), "prod")
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", (mine, another)), Opened("")])
        await cluster.at(10, [Deleted("", mine)])
        assert {row.subject.name for row in await cluster.store.load("prod")} == {"web", "api"}
        cluster.refusals = 1
        await cluster.at(309, [Deleted("", another)])
        await cluster.at(310)
        assert {row.subject.name for row in await cluster.store.load("prod")} == {"api"}
        await cluster.restart()
        await cluster.at(320, [Listed("", ()), Opened("")])
        assert {row.subject.name for row in await cluster.store.load("prod")} == {"api"}
        await cluster.at(620, [Listed("", ()), Opened("")])
        assert list(await cluster.store.load("prod")) == []
