"""When a cluster counts as out of sight, and when as back: design §3, a course of signs a line."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from tests.acceptance.following import Followed, followed
from tests.deployments import ZERO
from watcher.core.events import Edge
from watcher.errors import ClusterError, Forbidden, Throttled, Unauthorized, Unreachable
from watcher.ports import Broken, Listed, Opened, Probe

ERRORS: dict[str, ClusterError | None] = {
    "ok": None,
    "fail": Unreachable("no answer"),
    "401": Unauthorized("who?"),
    "403": Forbidden("no"),
    "429": Throttled("later"),
}
Signs = list[tuple[float, str]]


def every(start: int, stop: int, sign: str) -> Signs:
    """The sign at each heartbeat of 15 s from the start to the stop, both included."""
    return [(at, sign) for at in range(start, stop + 1, 15)]


START: Signs = [(0, "relist"), (0, "ok")]
DARK: Signs = [*START, (10, "broken")]
DEAD = [*START, (5, "silent"), *every(15, 45, "fail")]
LOST = "45 unreachable since 15"

COURSES: dict[str, tuple[Iterable[tuple[float, str]], list[str]]] = {
    "all is well": ([*START, *every(15, 300, "ok")], []),
    "three failures": (DEAD, [LOST]),
    "two failures": ([*START, (5, "silent"), *every(15, 30, "fail"), (45, "ok")], []),
    "a success between": ([*START, (5, "silent"), (15, "fail"), (30, "fail"), (45, "ok"), *every(60, 90, "fail")],
        ["90 unreachable since 60"]),
    "failures while the stream speaks": ([*START, *every(15, 300, "fail")], []),
    "failures, and a last byte between": (
        [*START, (5, "silent"), (15, "fail"), (30, "fail"), (31, "silent"), *every(45, 75, "fail")],
        ["75 unreachable since 45"]),
    "401 for a minute": ([*DARK, *every(15, 75, "401")], ["75 unauthorized since 15"]),
    "401 for less": ([*DARK, *every(15, 60, "401"), (74, "ok")], []),
    "403 after a success: five minutes": ([*DARK, *every(15, 330, "403")],
        ["315 unauthorized since 15"]),
    "403 after a success: for less": ([*DARK, *every(15, 300, "403"), (314, "ok")], []),
    "403 from the start: a minute": (every(0, 75, "403"), ["60 unauthorized since 0"]),
    "429 for three minutes": ([*DARK, *every(15, 210, "429")], ["195 throttled since 15"]),
    "429 for less": ([*DARK, *every(15, 180, "429"), (194, "ok")], []),
    "401 while the stream lives": ([*START, *every(15, 900, "401")], []),
    "403 while the stream lives": ([*START, *every(15, 900, "403")], []),
    "429 while the stream lives": ([*START, *every(15, 900, "429")], []),
    "401, and the stream ends": ([*START, *every(15, 300, "401"), (301, "broken"), *every(315, 375, "401")],
        ["361 unauthorized since 301"]),
    "429, and the stream ends for less": (
        [*START, *every(15, 300, "429"), (301, "broken"), *every(315, 465, "429"), (480, "relist"),
         *every(495, 900, "429")], []),
    "no watch for three minutes": ([*START, (10, "broken"), *every(15, 195, "ok")],
        ["190 view_stale since 10"]),
    "no watch for less": ([*START, (10, "broken"), *every(15, 180, "ok"), (189, "relist"), (300, "ok")], []),
    "back after two successes": ([*DEAD, (50, "relist"), (60, "ok"), (75, "ok")],
        [LOST, "75 restored since 15"]),
    "not back before": ([*DEAD, (50, "relist"), (60, "ok")], [LOST]),
    "not back before the list": ([*DEAD, *every(60, 90, "ok")], [LOST]),
    "back with the list": ([*DEAD, (46, "broken"), *every(60, 90, "ok"), (92, "relist")],
        [LOST, "92 restored since 15"]),
    "a failure between starts again": (
        [*DEAD, (50, "relist"), (60, "ok"), (75, "fail"), (90, "ok"), (105, "ok")],
        [LOST, "105 restored since 15"]),
    "unreachable, then refused": ([*DEAD, *every(60, 135, "401")],
        [LOST, "120 updated (unauthorized) since 15"]),
    "back, and throttled with everything in sight": ([*DEAD, (50, "relist"), *every(60, 900, "429")],
        [LOST, "105 restored since 15"]),
    "back, and every scope within 30 s": (
        [*DEAD, (46, "broken"), *every(60, 90, "ok"), (104, "relist"), *every(105, 300, "ok")],
        [LOST, "104 restored since 15"]),
    "back, and no watch for longer": (
        [*DEAD, (46, "broken"), *every(60, 300, "ok"), (305, "relist"), *every(315, 900, "ok")],
        [LOST, "105 updated (view_stale) since 15", "305 restored since 15"]),
    "back, and not a byte for longer": ([*DEAD, *every(60, 300, "ok")],
        [LOST, "105 updated (view_stale) since 15"]),
    "back, and the watch is throttled": ([*DEAD, (46, "busy"), *every(60, 300, "ok")],
        [LOST, "105 updated (throttled) since 15"]),
    "back, and the watch is refused": ([*DEAD, (46, "refused"), *every(60, 300, "ok")],
        [LOST, "105 updated (unauthorized) since 15"]),
    "back for a moment": (
        [*DEAD, (46, "broken"), *every(60, 75, "ok"), (90, "fail"), *every(105, 135, "ok"), (140, "relist"),
         *every(150, 300, "ok")],
        [LOST, "140 restored since 15"]),
    "refused for a moment as it returns": (
        [*DEAD, (50, "relist"), (60, "401"), (75, "403"), (90, "ok"), (105, "ok")],
        [LOST, "105 restored since 15"]),
}  # fmt: skip


async def _show(cluster: Followed, at: float, sign: str) -> None:
    match sign:
        case "relist":
            cluster.last_byte = None
            await cluster.at(at, [Listed("", ()), Opened("")])
        case "broken":
            await cluster.at(at, [Broken("", None)])
        case "busy" | "refused":
            await cluster.at(at, [Broken("", ERRORS[{"busy": "429", "refused": "403"}[sign]])])
        case "silent":
            await cluster.at(at)
            cluster.last_byte = ZERO + timedelta(seconds=at)
        case _:
            await cluster.at(at, probe=Probe(ERRORS[sign]))


@pytest.mark.parametrize(("signs", "expected"), COURSES.values(), ids=COURSES.keys())
async def test_course(tmp_path, signs, expected):
    """A cluster is told as one incident once its sign has lasted, and its end once it is back."""
    async with followed(tmp_path) as cluster:
        for at, sign in signs:
            await _show(cluster, at, sign)
    found = [
        f"{(e.at - ZERO).total_seconds():g} {e.type.partition('.')[2]} "
        f"{f'({e.reason}) ' if e.edge is Edge.UPDATED else ''}"
        f"since {(e.since - ZERO).total_seconds():g}"
        for e in cluster.recorded_events
    ]
    assert found == expected
