"""What comes and goes within its hold: told once the times below the floor are many and fill one."""

from datetime import timedelta

import pytest

from tests.acceptance.following import followed
from tests.acceptance.timelines import (
    NONE,
    OK,
    STALLED,
    START,
    Timeline,
    down,
    gone,
    restart,
    see,
    table,
    told,
    up,
)
from tests.deployments import Json, stamp, web
from watcher.cluster.decode import snapshot_from
from watcher.core.compose import compose
from watcher.core.delivery import Part
from watcher.core.events import Edge, Flaps
from watcher.ports import Applied, Listed, Opened


def flaps(
    count: int, low: float = 25, high: float = 5, *, start: float = 60, bad: Json = NONE
) -> list[Json]:
    """So many times down for `low` and up for `high` seconds."""
    starts = [start + (low + high) * n for n in range(count)]
    return [step for at in starts for step in (see(at, bad), see(at + low, OK))]


SLOW_DOWN = web(1, degraded_for="10m")
QUIET = web(0, silence_until=stamp(300))
TOLD = "210 A flapping none_available critical since 60"
UNDER_THE_HOLD: dict[str, Timeline] = {
    "down 25 s of every 30": ([START, *flaps(40)],
        [TOLD, "2155 A recovered none_available critical since 60"]),
    "five times": ([START, *flaps(5)], []),
    "six blips of a second": ([START, *flaps(6, 1, 9)], []),
    "thirty blips of a second: as long as a hold": ([START, *flaps(30, 1, 9)],
        ["351 A flapping none_available critical since 60",
         "1251 A recovered none_available critical since 60"]),
    "the sixth lasts until they are as long as a hold": (
        [START, *flaps(5, 2, 8), see(110, NONE), see(150, OK)],
        ["130 A flapping none_available critical since 60",
         "1050 A recovered none_available critical since 60"]),
    "the sixth stays": ([START, *flaps(5), see(210, NONE)],
        [TOLD, "1110 A updated none_available critical since 60"]),
    "the sixth is worse for less long": (
        [START, *flaps(5, 3, 7, bad=web(1)), see(110, web(1)), see(112, NONE), see(170, OK)],
        ["125 A flapping none_available critical since 60",
         "1070 A recovered none_available critical since 60"]),
    "six in more than half an hour": ([START, *flaps(9, 25, 375)], []),
    "a floor that was always met": ([START, *flaps(20, 4, 26, bad=STALLED)], []),
    "a floor that was met now and then": (
        [START, *[step for n in range(6) for step in (
            see(60 + 30 * n, STALLED), see(64 + 30 * n, OK),
            see(70 + 30 * n, NONE), see(80 + 30 * n, OK))]],
        ["220 A flapping none_available critical since 70",
         "1130 A recovered none_available critical since 70"]),
    "a hold of its own": ([START, *flaps(40, bad=SLOW_DOWN)],
        ["775 A flapping below_minimum warning since 60",
         "2155 A recovered below_minimum warning since 60"]),
    "ignored at first": ([START, *flaps(3, bad=web(0, ignore="true")), *flaps(5, start=150)], []),
    "silenced: told when that is over": ([START, *flaps(7, bad=QUIET), see(270, QUIET)],
        ["300 A flapping none_available critical since 60",
         "1170 A updated none_available critical since 60"]),
    "deleted": ([START, *flaps(7), gone(300, OK)],
        [TOLD, "300 A closed none_available critical since 60 (deleted)"]),
    "a restart in the middle of one": ([START, *flaps(2), see(120, NONE), restart(130), see(145, OK),
        *flaps(3, start=150)],
        [TOLD, "1135 A recovered none_available critical since 60"]),
    "restarts between them": (
        [START, *flaps(2), restart(117), *flaps(2, start=120), restart(178), *flaps(2, start=180)],
        [TOLD, "1135 A recovered none_available critical since 60"]),
    "an end that nobody saw: what was seen counts": (
        [START, see(60, NONE), down(61), see(70, OK), up(91), *flaps(5, 1, 9, start=120)], []),
    "an end while away: what was seen counts": (
        [START, see(60, NONE), restart(61, away=30), see(70, OK), *flaps(5, 1, 9, start=120)], []),
    "an end in an outage: what was seen counts": (
        [START, see(60, NONE), down(61), see(70, OK), up(200), *flaps(5, 1, 9, start=250)],
        ["105 A cluster unreachable since 75", "225 A cluster restored since 75"]),
    "a change not yet acted on: what was seen counts": (
        [START, see(60, NONE), see(61, web(0, generation=2, observed=1)),
         see(100, web(3, generation=2)), *flaps(5, 1, 9, start=120)], []),
    "numbers of its own": (
        [{"policy": {"flapping": {"episodes": 3, "stable": "2m"}}}, START, *flaps(3)],
        ["120 A flapping none_available critical since 60",
         "265 A recovered none_available critical since 60"]),
}  # fmt: skip


@table(UNDER_THE_HOLD)
async def test_flaps_under_the_hold(steps, expected):
    """Each hold starts anew; together, from the sixth time on, they have one."""
    assert await told(steps) == expected


def shown(at: float, obj: Json) -> Applied:
    obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(int(at * 10) + 10)}}
    return Applied("", snapshot_from(obj, "prod"))


async def test_how_often_and_how_long_is_told(tmp_path):
    """At its opening, in the webhook's data, and at its end with all that came after."""
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", (shown(0, OK).snapshot,)), Opened("")])
        for n in range(9):
            await cluster.at(60 + 30 * n, [shown(60 + 30 * n, NONE)])
            await cluster.at(85 + 30 * n, [shown(85 + 30 * n, OK)])
        await cluster.at(2000)
    opened, ended = cluster.recorded_events
    assert (opened.edge, ended.edge) == (Edge.FLAPPING, Edge.RECOVERED)
    first = opened.at - timedelta(seconds=150)
    assert opened.flaps == Flaps(6, first, timedelta(seconds=5 * 25))
    assert ended.flaps == Flaps(9, first, timedelta(seconds=9 * 25))
    text = compose(opened, latest=opened, part=Part.POST, now=opened.at).text
    assert ", degraded 6 times since 00:01 UTC (2 min), for 2 min in all: nothing serves" in text
    text = compose(ended, latest=ended, part=Part.REPLY, now=ended.at).text
    assert ", degraded 9 times since 00:01 UTC, for 3 min in all. Now 3 of 3 replicas" in text


@pytest.mark.parametrize(("count", "digests"), [(10, 0), (11, 1)])
async def test_many_that_flap_together_are_a_storm(tmp_path, count, digests):
    """A node that comes and goes takes all of its own along: one digest, if they are many."""
    names = [f"web-{n}" for n in range(count)]
    async with followed(tmp_path) as cluster:
        healthy = tuple(shown(0, web(3, name=name)).snapshot for name in names)
        await cluster.at(0, [Listed("", healthy), Opened("")])
        for at in range(60, 211, 30):
            await cluster.at(at, [shown(at, web(0, name=name)) for name in names])
            if at < 210:
                await cluster.at(at + 25, [shown(at + 25, web(3, name=name)) for name in names])
        await cluster.at(215)
    opened = [e for e in cluster.recorded_events if e.edge is Edge.FLAPPING]
    assert len(opened) == count
    assert sum(e.digest and e.edge is Edge.DEGRADED for e in cluster.recorded_events) == digests
