"""A reload that changes the policy: what is under way goes by the new one, as the docs say."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.acceptance.following import followed
from tests.acceptance.test_last_look import LOW, OK, shown
from tests.deployments import ZERO, web
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.ports import Applied, Broken, Listed, Opened, WatchEvent

HEALED = shown(4, web(3))
RAISED = shown(5, web(3, 30))
GAP = shown(6, web(0, recreate=True, reason="ReplicaSetUpdated"))


def low(at: float) -> tuple[float, list[WatchEvent]]:
    return at, [Applied("", LOW)]


CASES = [
    pytest.param([low(10)], {}, ["degraded 70"], id="the same again"),
    pytest.param([low(10)], {"degraded_for": 120}, ["degraded 130"], id="a longer hold"),
    pytest.param([low(10)], {"degraded_for": 30}, ["degraded 60"], id="a shorter one"),
    pytest.param([low(10)], {"degraded_for": 1}, ["degraded 31"], id="one that were over"),
    pytest.param([low(40)], {"degraded_for": 1}, ["degraded 41"], id="what comes after it"),
    pytest.param(
        [(10, [Applied("", RAISED)])], {"scale_up_grace": 15}, ["degraded 90"], id="a time rule"
    ),
    pytest.param(
        [(10, [Applied("", GAP)])], {"nothing_serves_for": 90}, ["degraded 100"], id="a bound"
    ),
    pytest.param(
        [(10, [Applied("", GAP)])],
        {"nothing_serves_for": 15},
        ["degraded 40"],
        id="one that is shorter than the hold",
    ),
    pytest.param(
        [low(10), (20, [Broken("", None)]), (50, [Listed("", (LOW,)), Opened("")])],
        {"degraded_for": 5},
        ["degraded 55"],
        id="while nothing is in sight",
    ),
    pytest.param(
        [low(-80), (20, [Applied("", HEALED)])],
        {"recovered_for": 5},
        ["degraded -20", "recovered 80"],
        id="a clearing keeps its date",
    ),
]


@pytest.mark.parametrize(("course", "changes", "told"), CASES)
async def test_a_new_policy_at_thirty_seconds(tmp_path, course, changes, told):
    """Its holds count for what is held, a shorter one from now at the latest; all else stands."""
    times = {name: timedelta(seconds=n) for name, n in changes.items()}
    policy = replace(HealthPolicy(), **times)
    async with followed(tmp_path) as cluster:
        cluster.clock.set(ZERO - timedelta(seconds=100))
        await cluster.restart()
        await cluster.at(-100, [Listed("", (OK,)), Opened("")])
        for at, events in course:
            if at < 30:
                await cluster.at(at, events)
        await cluster.at(30)
        cluster.follower.obey(policy, ClusterPolicy())
        await cluster.follower.step(cluster.clock.now())
        for at, events in course:
            if at > 30:
                await cluster.at(at, events)
        await cluster.at(200)
    edges = [(e.edge, (e.at - ZERO).total_seconds()) for e in cluster.recorded_events]
    assert [f"{edge} {at:g}" for edge, at in edges] == told
