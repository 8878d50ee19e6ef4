"""How many openings within a minute make a storm, through a real follower and store."""

import pytest

from tests.acceptance.following import followed
from tests.deployments import web
from watcher.cluster.decode import snapshot_from
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
