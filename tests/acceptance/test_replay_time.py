"""What takes its time: raised replicas, rollouts that hang, outages that come and go."""

from tests.acceptance.timelines import (
    DEGRADED,
    FIRING,
    LOW,
    NONE,
    OK,
    ROLLING,
    SHORT,
    START,
    ZERO_PODS,
    Timeline,
    down,
    gone,
    listed,
    restart,
    see,
    table,
    told,
    up,
)
from tests.deployments import Json, having, web

GRACE_OVER = "610 A degraded below_minimum warning since 10"
RAISES: dict[str, Timeline] = {
    "not met": ([START, see(10, web(3, 30))], [GRACE_OVER]),
    "not quite met": ([START, see(10, web(3, 30)), see(500, web(28, 30))], [GRACE_OVER]),
    "met": ([START, see(10, web(3, 30)), see(500, web(30, 30))], []),
    "capacity lost meanwhile": ([START, see(10, web(3, 30)), see(100, web(1, 30))],
        ["160 A degraded below_minimum warning since 10"]),
    "from zero": ([listed(0, ZERO_PODS), see(10, web(0, 3))],
        ["610 A degraded none_available critical since 10"]),
    "raised again": ([START, see(10, web(3, 30)), see(300, web(3, 40))],
        ["900 A degraded below_minimum warning since 10"]),
    "lowered, and still raised": ([START, see(10, web(3, 30)), see(300, web(3, 5))], [GRACE_OVER]),
    "lowered to what it was, and raised again": (
        [START, see(10, web(3, 30)), see(100, SHORT), see(650, web(3, 30))],
        ["1250 A degraded below_minimum warning since 650"]),
    "never settled before": ([listed(0, web(9, 10)), see(10, web(9, 30))], [GRACE_OVER]),
    "never settled before, and capacity lost": ([listed(0, web(9, 10)), see(10, web(8, 30))],
        [DEGRADED]),
    "raised while away": ([START, restart(10, away=50), see(20, web(3, 30, turned=20))],
        ["660 A degraded below_minimum warning since 20"]),
    "raised while away, and capacity lost": (
        [START, restart(10, away=50), see(20, web(1, 30, turned=20))],
        ["80 A degraded below_minimum warning since 20"]),
    "counted from the spec, not from its observation": (
        [START, see(10, web(3, 30, generation=2, observed=1)), see(40, web(3, 30, generation=2))],
        [GRACE_OVER]),
    "put off by a blip": ([START, see(10, web(3, 30)), down(100), up(130)],
        ["640 A degraded below_minimum warning since 10"]),
    "put off by an outage": ([START, see(10, web(3, 30)), down(100), up(200)],
        ["135 A cluster unreachable since 105", "225 A cluster restored since 105",
         "710 B degraded below_minimum warning since 10"]),
    "not by a restart": ([START, see(10, web(3, 30)), restart(100)], [GRACE_OVER]),
    "put off by time away": ([START, see(10, web(3, 30)), restart(100, away=50)],
        ["660 A degraded below_minimum warning since 10"]),
    "a grace of its own": ([{"policy": {"scale_up_grace": "2m"}}, START, see(10, web(3, 30))],
        ["130 A degraded below_minimum warning since 10"]),
}  # fmt: skip


def stuck(at: float, since: float = 10) -> str:
    return f"{at} A degraded no_progress warning since {since}"


PROGRESS: dict[str, Timeline] = {
    "a rollout that hangs": ([START, see(10, ROLLING)], [stuck(910)]),
    "nine of ten": ([listed(0, web(9, 10))], [stuck(900, 0)]),
    "a spec that is never observed": ([START, see(10, web(generation=2, observed=1))],
        [stuck(910)]),
    "a counter moves": (
        [START, see(10, ROLLING), see(500, web(3, updated=2, total=4, reason="ReplicaSetUpdated"))],
        [stuck(1400, 500)]),
    "an old pod goes": (
        [START, see(10, ROLLING), see(500, web(3, updated=1, total=3, reason="ReplicaSetUpdated"))],
        [stuck(1400, 500)]),
    "an old pod goes, and no new one comes": (
        [START, see(10, web(2, updated=1, total=3)), see(500, web(2, updated=1, total=2))],
        [stuck(1400, 500)]),
    "a new generation": (
        [START, see(10, ROLLING),
         see(500, having(web(3, updated=1, total=4), metadata__generation=2))],
        [stuck(1400, 500)]),
    "a pod is lost": (
        [START, see(10, ROLLING), see(500, web(2, updated=1, total=4, reason="ReplicaSetUpdated"))],
        [stuck(910)]),
    "a deadline that is longer": (
        [START, see(10, web(3, updated=1, total=4, reason="ReplicaSetUpdated", deadline=1800))],
        [stuck(1810)]),
    "no deadline": (
        [START,
         see(10, web(3, updated=1, total=4, reason="ReplicaSetUpdated", deadline=2147483647))],
        [stuck(910)]),
    "waiting for minReadySeconds": ([START, see(10, web(2, ready=3, min_ready=1200))],
        [stuck(1270)]),
    "put off by a blip": ([START, see(10, ROLLING), down(100), up(130)], [stuck(940)]),
    "put off by a restart": ([START, see(10, SHORT), restart(500)], [stuck(1400)]),
    "a rollout's restart: since it began": ([START, see(10, ROLLING), restart(500)], [stuck(910)]),
    "a rollout's restart: since it moved": (
        [START, see(10, ROLLING),
         see(200, web(3, updated=2, total=4, reason="ReplicaSetUpdated", moved=200)), restart(500)],
        [stuck(1100, 200)]),
    "a rollout's restart: put off by time away": ([START, see(10, ROLLING), restart(500, away=100)],
        [stuck(1010)]),
    "a rollout's restart after time away": (
        [START, see(10, ROLLING), restart(100, away=100), restart(500)],
        [stuck(1010)]),
    "a rollout that moved: restarts after time away": (
        [START, see(10, ROLLING),
         see(200, web(3, updated=2, total=4, reason="ReplicaSetUpdated", moved=200)),
         restart(300, away=100), restart(500)],
        [stuck(1200, 200)]),
    "a rollout's restart after a blip": (
        [START, see(10, ROLLING), down(100), up(130), restart(500)],
        [stuck(940)]),
    "moves, and hangs again": (
        [START, see(10, ROLLING),
         see(1000, web(3, updated=2, total=4, reason="ReplicaSetUpdated", moved=1000))],
        [stuck(910)]),
    "ends as any other": ([START, see(10, ROLLING), see(1000, OK)],
        [stuck(910), "1060 A recovered no_progress warning since 10"]),
}  # fmt: skip


def cycles(count: int, period: float = 200) -> list[Json]:
    """Outages of 70 s: each is told after 60 s, and its end another 60 s after it."""
    starts = [10 + period * n for n in range(count)]
    return [step for t in starts for step in (see(t, LOW), see(t + 70, OK))]


def cycles_told(count: int, period: int = 200) -> list[str]:
    return [
        f"{10 + period * n + after} {'ABCDEFG'[n]} {edge} below_minimum warning since {10 + period * n}"
        for n in range(count)
        for after, edge in ((60, "degraded"), (130, "recovered"))
    ]


def blips(count: int, period: float = 100) -> list[Json]:
    """Outages of 20 s that nobody is told of."""
    starts = [10 + period * n for n in range(count)]
    return [step for t in starts for step in (see(t, LOW), see(t + 20, OK))]


FLAP = [START, *cycles(3), see(610, LOW), see(680, OK)]
FLAP_TOLD = [*cycles_told(3), "670 D flapping below_minimum warning since 610"]
STEADY_AGAIN = [*FLAP, see(700, LOW)]
FLAPPING: dict[str, Timeline] = {
    "three cycles, then stable": (FLAP,
        [*FLAP_TOLD, "1580 D recovered below_minimum warning since 610"]),
    "three slow cycles": ([START, *cycles(4, 700)], cycles_told(4, 700)),
    "two cycles": ([START, *cycles(3)], cycles_told(3)),
    "quiet meanwhile": ([*FLAP, see(800, NONE), see(850, OK), see(900, LOW), see(910, OK)],
        [*FLAP_TOLD, "1810 D recovered below_minimum warning since 610"]),
    "steadily degraded": (STEADY_AGAIN,
        [*FLAP_TOLD, "1600 D updated below_minimum warning since 610"]),
    "steadily degraded, then as any other": ([*STEADY_AGAIN, see(1700, OK), see(1800, LOW)],
        [*FLAP_TOLD, "1600 D updated below_minimum warning since 610",
         "1760 D recovered below_minimum warning since 610",
         "1860 E degraded below_minimum warning since 1800"]),
    "forgotten once it is over": ([*FLAP, see(1600, LOW)],
        [*FLAP_TOLD, "1580 D recovered below_minimum warning since 610",
         "1660 E degraded below_minimum warning since 1600"]),
    "closed meanwhile": ([*FLAP, gone(900, OK)],
        [*FLAP_TOLD, "900 D closed below_minimum warning since 610 (deleted)"]),
    "closed meanwhile, and forgotten": ([*FLAP, see(900, web(paused=True)), see(910, LOW)],
        [*FLAP_TOLD, "900 D closed below_minimum warning since 610 (paused)",
         "970 E degraded below_minimum warning since 910"]),
    "restarted meanwhile": ([*FLAP, restart(900)],
        [*FLAP_TOLD, "1580 D recovered below_minimum warning since 610"]),
    "six episodes that nobody was told of": ([START, *blips(6), see(610, LOW), see(700, OK)],
        ["510 A flapping below_minimum warning since 510",
         "1600 A recovered below_minimum warning since 510"]),
    "the sixth episode is the longer one": ([START, *blips(5), see(510, LOW)],
        ["510 A flapping below_minimum warning since 510",
         "1410 A updated below_minimum warning since 510"]),
    "five episodes": ([START, *blips(5)], []),
    "six episodes in more than half an hour": ([START, *blips(6, 400), see(2410, LOW)],
        ["2470 A degraded below_minimum warning since 2410"]),
    "relapses count as episodes": (
        [*FIRING, *[step for t in range(80, 180, 20) for step in (see(t, OK), see(t + 10, LOW))],
         see(200, OK), see(300, LOW)],
        [DEGRADED, "260 A recovered below_minimum warning since 10",
         "300 B flapping below_minimum warning since 300",
         "1200 B updated below_minimum warning since 300"]),
    "numbers of its own": (
        [{"policy": {"flapping": {"cycles": 1, "stable": "2m"}}}, START, *cycles(2)],
        [*cycles_told(1), "270 B flapping below_minimum warning since 210",
         "400 B recovered below_minimum warning since 210"]),
}  # fmt: skip


@table(RAISES)
async def test_raises(steps, expected):
    """Raised replicas have their grace, which blindness does not use up."""
    assert await told(steps) == expected


@table(PROGRESS)
async def test_progress(steps, expected):
    """What is on its way and does not move is told after fifteen minutes in sight."""
    assert await told(steps) == expected


@table(FLAPPING)
async def test_flapping(steps, expected):
    """What comes and goes is told once, and once more when it has settled."""
    assert await told(steps) == expected
