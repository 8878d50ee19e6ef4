"""Ten thousand Deployments: what has not changed costs nothing."""

from itertools import cycle

from msgspec.structs import replace

from tests.acceptance.following import followed
from tests.deployments import web
from watcher.cluster.decode import snapshot_from
from watcher.ports import Broken, Listed, Opened

MANY = 10_000


async def test_an_unchanged_list_writes_nothing_and_tells_nobody(tmp_path):
    """Listed again after a break, whatever state each is in: no transaction, no message."""
    states = (
        web(3),
        web(1),
        web(0, 0),
        web(3, updated=1, total=4, reason="ReplicaSetUpdated", moved=0),
    )
    kinds = [snapshot_from(state, "prod") for state in states]
    same = tuple(
        replace(kind, name=f"{kind.name}-{n}", uid=f"uid-{n}", resource_version=str(n + 1))
        for n, kind in zip(range(MANY), cycle(kinds), strict=False)
    )
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", same), Opened("")])
        await cluster.at(100)
        assert len([e for e in cluster.recorded_events if not e.digest]) == MANY // 4
        commits, cluster.recorded_events = cluster.commits, []
        for at in (110, 120):
            await cluster.at(at, [Broken("", None), Listed("", same), Opened("")])
        assert cluster.commits == commits
        assert cluster.recorded_events == []
        assert len(cluster.follower.view.tracked) == MANY
