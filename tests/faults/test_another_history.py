"""An API server whose store was put back to an older copy: versions are lower, and watches silent for ever."""

import json
from collections import Counter

import msgspec
import pytest

from tests.faults.warp import warped
from tests.faults.world import World, world
from watcher.core.model import Json
from watcher.testing.apiserver import Backup, Fault
from watcher.testing.objects import deployment

PROBE = {"limit": "1"}


async def older_copy(w: World) -> Backup:
    """Of a moment in which a was down and d not there yet; b is gone by now, and nobody was told."""
    w.server.set_ready("shop", "a", 0)
    copy = w.server.backup()
    await w.pass_time(5)
    w.server.set_ready("shop", "a", 3)
    w.server.delete("shop", "b")
    w.server.apply(deployment("shop", "d"))
    await w.pass_time(5)
    assert w.told == []
    return copy


async def follows_the_copy(w: World, log: str) -> None:
    """What is there now is shown, and what happens to it is told; that it happened is said once."""
    assert [row["name"] for row in await w.rows()] == ["a", "b", "c"]
    [stream] = (await w.get("/health/apiserver"))["streams"]
    assert stream["rewinds"] == 1
    assert stream["rewound_at"] is not None
    line = rewound(log)
    assert int(line["version"]) < int(line["reached"])
    told = len(w.told)
    w.server.set_ready("shop", "a", 3)
    w.server.set_ready("shop", "b", 0)
    await w.pass_time(120)
    assert Counter(w.told[told:]) == Counter(["recovered a", "degraded b"])


def rewound(log: str) -> Json:
    """The one line that says so."""
    lines: list[Json] = [json.loads(each) for each in log.splitlines()]
    [line] = [each for each in lines if each["event"] == "cluster.rewound"]
    return line


@warped
async def test_under_an_open_watch(tmp_path, log):
    """Listed anew at the next heartbeat: what the copy has is followed, and no outage is made of it."""
    async with world(tmp_path) as w:
        w.server.put_back(await older_copy(w))
        broke = w.seconds
        await w.pass_time(90)
        assert w.told == ["degraded a"]
        assert w.told_at("degraded a") <= broke + 60
        assert len(w.lists(since=broke)) == 1
        await follows_the_copy(w, log.getvalue())


@pytest.mark.parametrize("away", [10, 70, 200])
@warped
async def test_during_an_outage(tmp_path, log, away):
    """Whether it watches on or lists anew afterwards: the copy counts, and the restored report says so."""
    async with world(tmp_path) as w:
        copy = await older_copy(w)
        await w.server.stop()
        await w.pass_time(away)
        w.server.put_back(copy)
        await w.server.start()
        await w.pass_time(90)
        outage = ["unreachable", "restored"] if away > 60 else []
        assert w.told == [*outage, "degraded a"]
        for _, event in w.received[1:2] if outage else ():
            assert event["data"]["rewound"]
            assert "put back to an older copy" in event["data"]["summary"]
            changed = event["data"]["meanwhile"]
            names = {
                kind: [c["name"] for c in of.get("deployments", [])] for kind, of in changed.items()
            }
            assert (names["degraded"], names["deleted"]) == (["a"], ["d"])
        await follows_the_copy(w, log.getvalue())


def probed(version: str) -> Fault:
    """A server that gives every heartbeat this version."""
    empty = {"kind": "DeploymentList", "apiVersion": "apps/v1", "items": []}
    body = msgspec.json.encode({**empty, "metadata": {"resourceVersion": version}})
    return Fault("list", 200, body, query=PROBE, lasts=True)


@warped
async def test_lower_versions_for_ever_are_no_storm_of_lists(tmp_path):
    """Whatever such a server is: it is listed as often as one that fails, events come, nothing is told."""
    async with world(tmp_path, HEARTBEAT__INTERVAL="3s") as w:
        w.server.faults.append(probed("7"))
        for number in range(60):
            w.server.apply(
                deployment("shop", "c", annotations={"deployment-watcher.dev/owner": str(number)})
            )
            await w.pass_time(10)
        lists = w.lists(since=10)
        assert 2 <= len(lists) <= 600 / 30 + 1
        assert w.told == []
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(120)
        assert w.told == ["degraded a"]


@pytest.mark.parametrize("version", ["abc", "12-7", "99999999999999999999999"])
@warped
async def test_versions_that_cannot_be_lower_say_nothing(tmp_path, version):
    """Only integers compare, and a higher one is what a busy server gives."""
    async with world(tmp_path) as w:
        w.server.faults.append(probed(version))
        await w.pass_time(300)
        assert len(w.lists()) == 1
