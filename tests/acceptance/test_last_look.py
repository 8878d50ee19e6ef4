"""Before a page goes out, or an end is told, the API server is asked once more."""

import pytest

from tests.acceptance.following import Followed, followed
from tests.deployments import Json, stamp, web
from watcher.cluster.decode import snapshot_from
from watcher.core.events import Resolution
from watcher.core.model import DeploymentSnapshot
from watcher.ports import Applied, Deleted, Listed, Looked, Opened

UID = "uid-of-web"


def shown(version: int | str, obj: Json) -> DeploymentSnapshot:
    obj["metadata"]["resourceVersion"] = str(version)
    return snapshot_from(obj, "prod")


OK, LOW, NONE = shown(1, web(3)), shown(2, web(1)), shown(3, web(0))
QUIET = web(1, silence_until=stamp(300))
LOST_GRACE = web(3, 9, updated=9)
ROLLING = web(3, updated=1, total=4, reason="ReplicaSetUpdated", moved=10, generation=2)
"""No condition says since when."""


async def start(cluster: Followed, *seen: DeploymentSnapshot) -> None:
    await cluster.at(0, [Listed("", (OK,)), Opened("")])
    for s in seen:
        await cluster.at(10, [Applied("", s)])


def told(cluster: Followed) -> list[str]:
    return [f"{e.edge} {e.resolution or e.reason}" for e in cluster.recorded_events]


ANSWERS: dict[str, tuple[Looked, list[str]]] = {
    "it is as it was": ({UID: LOW}, ["degraded below_minimum"]),
    "nobody answers": ({}, ["degraded below_minimum"]),
    "it has healed": ({UID: shown(3, web(3))}, []),
    "it is worse": ({UID: NONE}, ["degraded none_available"]),
    "it is gone": ({UID: Resolution.DELETED}, []),
    "it is another one": ({UID: shown(3, web(1, uid="2"))}, []),
    "an older state from a cache": ({UID: OK}, ["degraded below_minimum"]),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_what_is_seen_last_counts(tmp_path, answer, expected):
    """Held for a minute it is asked for once, and whatever the answer says is true."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        cluster.there = answer
        await cluster.at(69.9)
        assert cluster.looks == []
        await cluster.at(71)
    assert cluster.looks == [["web"]]
    assert told(cluster) == expected


@pytest.mark.parametrize(
    ("obj", "due", "before"),
    [(QUIET, 300, ["degraded below_minimum"]), (LOST_GRACE, 610, []), (ROLLING, 910, [])],
    ids=["a silence is over", "a grace is over", "nothing moves"],
)
async def test_every_way_to_be_announced(tmp_path, obj, due, before):
    """Whatever time alone would announce is looked at before, and healed it is not told."""
    async with followed(tmp_path) as cluster:
        await start(cluster, shown(2, obj))
        cluster.there = {UID: shown(2, obj)}
        await cluster.at(due - 1)
        looks = len(cluster.looks)
        cluster.there = {UID: shown(9, web(3))}
        await cluster.at(due + 1)
    assert len(cluster.looks) == looks + 1
    assert told(cluster) == before  # a silenced one is recorded, and suppressed


async def test_what_was_just_seen_is_believed(tmp_path):
    """No request for what the watch showed within the last five seconds, or is announced already."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        await cluster.at(66, [Applied("", shown(3, web(1, revision=2)))])
        await cluster.at(80)
        await cluster.at(200, [Applied("", shown(4, web(3)))])
        await cluster.at(300)
    assert told(cluster) == ["degraded below_minimum", "recovered below_minimum"]
    assert cluster.looks == []


async def test_many_at_once_are_one_look(tmp_path):
    """Thirty that fall due together are asked for together."""
    async with followed(tmp_path) as cluster:
        names = [f"web-{n}" for n in range(30)]
        await cluster.at(0, [Listed("", tuple(shown(1, web(name=n)) for n in names)), Opened("")])
        await cluster.at(10, [Applied("", shown(2, web(1, name=n))) for n in names])
        await cluster.at(80)
    assert [sorted(look) for look in cluster.looks] == [sorted(names)]


async def test_a_store_that_refuses_makes_no_flood(tmp_path):
    """What could not be recorded is looked at when it is tried again, and not at every event."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        await cluster.at(69)
        cluster.refusals = 1000
        for n in range(60):
            other = shown(n + 10, web(3, name="other", revision=n))
            await cluster.at(70 + n / 10, [Applied("", other)])
        assert len(cluster.looks) <= 3  # at the most at 70, 71 and 73 s
        cluster.refusals = 0
        await cluster.at(120)
    assert told(cluster) == ["degraded below_minimum"]


GONE = {
    "still there, not selected": ({UID: shown(3, web(1))}, "left_scope"),
    "not there": ({UID: Resolution.DELETED}, "deleted"),
    "not there or not selected, nobody may know": ({UID: Resolution.LEFT_SCOPE}, "left_scope"),
    "another one": ({UID: shown(3, web(1, uid="2"))}, "deleted"),
    "nobody answers": ({}, "deleted"),
}


@pytest.mark.parametrize("listed", [False, True], ids=["an event", "a list"])
@pytest.mark.parametrize(("answer", "resolution"), GONE.values(), ids=GONE.keys())
async def test_left_scope(tmp_path, answer, resolution, listed):
    """With a label selector, what vanishes is looked for before its end is told."""
    async with followed(tmp_path, selective=True) as cluster:
        await start(cluster, LOW)
        await cluster.at(80)
        cluster.there, cluster.looks = answer, []
        gone = Listed("", ()) if listed else Deleted("", LOW)
        await cluster.at(100, [gone])
    assert told(cluster) == ["degraded below_minimum", f"closed {resolution}"]
    assert cluster.looks == [["web"]]


@pytest.mark.parametrize(("selective", "seen"), [(True, OK), (False, LOW)])
async def test_nobody_asks_where_nobody_is_told(tmp_path, selective, seen):
    """Without an incident nobody wants to know, and without a selector a deletion is one."""
    async with followed(tmp_path, selective=selective) as cluster:
        await start(cluster, seen)
        await cluster.at(80)
        cluster.looks.clear()
        await cluster.at(100, [Deleted("", seen)])
    assert cluster.looks == []
