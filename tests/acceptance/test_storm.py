"""How many openings within a minute make a storm, through a real follower and store."""

from datetime import timedelta

import pytest

from tests.acceptance.following import followed
from tests.deployments import ZERO, web
from watcher.cluster.decode import snapshot_from
from watcher.core.events import Edge
from watcher.core.policy import HealthPolicy
from watcher.ports import Applied, Listed, Opened


@pytest.mark.parametrize(
    ("starts", "alone", "grouped"),
    [
        ([10] * 10, 10, 0),
        ([10] * 11, 0, 11),
        ([10] * 6 + [40] * 5, 0, 11),
        ([10] * 6 + [130] * 5, 11, 0),
        ([10 + 30 * n for n in range(14)], 14, 0),
    ],
    ids=["ten", "eleven", "eleven within a minute", "eleven within three", "one each half minute"],
)
async def test_storm(tmp_path, starts, alone, grouped):
    """More than ten openings within a minute are one digest, ten are ten messages."""
    names = [f"web-{n}" for n in range(len(starts))]
    async with followed(tmp_path) as cluster:
        healthy = tuple(snapshot_from(web(name=name), "prod") for name in names)
        await cluster.at(0, [Listed("", healthy), Opened("")])
        for name, start in zip(names, starts, strict=True):
            await cluster.at(start, [Applied("", snapshot_from(web(1, name=name), "prod"))])
        await cluster.at(starts[-1] + 60)
    digests = [e for e in cluster.recorded_events if e.digest]
    members = {member for e in digests for member in e.members}
    opened = {e.incident for e in cluster.recorded_events if not e.digest}
    assert (len(opened - members), len(members)) == (alone, grouped)
    assert len({e.incident for e in digests}) == (grouped > 0)


async def test_what_cannot_open_makes_no_storm(tmp_path):
    """Ten go down, and of five more nobody knows, since their last change is not acted on yet."""
    names = [f"web-{n}" for n in range(15)]
    async with followed(tmp_path) as cluster:
        healthy = tuple(snapshot_from(web(name=name), "prod") for name in names)
        await cluster.at(0, [Listed("", healthy), Opened("")])
        low = [Applied("", snapshot_from(web(1, name=name), "prod")) for name in names]
        await cluster.at(10, low)
        unseen = [web(1, name=name, generation=2, observed=1) for name in names[10:]]
        await cluster.at(20, [Applied("", snapshot_from(obj, "prod")) for obj in unseen])
        await cluster.at(70)
    assert len(cluster.recorded_events) == 10
    assert not any(event.digest for event in cluster.recorded_events)


async def test_a_storm_that_nobody_saw_coming(tmp_path):
    """A hundred rollouts stall at once, without a hold: one message, and one digest with the rest.

    Those that were held for it join it once, however it grows: it ends with the last of them.
    """
    names = [f"web-{n}" for n in range(100)]
    stalled = [
        snapshot_from(
            web(3, updated=1, generation=2, revision=2, name=name, progressing="False",
                reason="ProgressDeadlineExceeded", moved=9), "prod",
        )
        for name in names
    ]  # fmt: skip
    at_once = HealthPolicy(rollout_stalled_for=timedelta(0))
    async with followed(tmp_path, health=at_once) as cluster:
        healthy = tuple(snapshot_from(web(name=name), "prod") for name in names)
        await cluster.at(0, [Listed("", healthy), Opened("")])
        waves = (10, stalled[:1]), (10.3, stalled[1:7]), (10.6, stalled[7:50]), (10.7, stalled[50:])
        for second, some in waves:
            await cluster.at(second, [Applied("", one) for one in some])
        claims = await cluster.store.claim("chat", ZERO + timedelta(seconds=13), 100)
        await cluster.at(20, [Applied("", one) for one in healthy])
        await cluster.at(90)
    assert [claim.event.digest for claim in claims] == [True, False]
    assert len(claims[0].members) == 99
    assert cluster.recorded_events[-1].digest
    assert len(cluster.recorded_events[-1].members) == 99
    assert sum(e.edge is Edge.RECOVERED for e in cluster.recorded_events) == 101
