"""What the API server says of versions, and what it says wrongly: nothing but the truth is told (watch.md §5)."""

from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest

from tests.faults.warp import warped
from tests.faults.world import World, world
from watcher.core.model import Json
from watcher.testing.apiserver import Fault, event, status
from watcher.testing.objects import deployment

SECOND = timedelta(seconds=1)


def listing(*objects: Json, version: int) -> bytes:
    """A list as an API server with this state would give it."""
    metadata = {"resourceVersion": str(version)}
    whole = {"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": metadata}
    return msgspec.json.encode({**whole, "items": objects})


async def still_works(w: World) -> None:
    """Nothing was told; what happens from now on is, once."""
    assert w.told == []
    assert {row["name"]: row["ready"] for row in await w.rows()} == dict.fromkeys("abc", 3)
    w.server.set_ready("shop", "a", 0)
    await w.pass_time(60)
    assert w.told == ["degraded a"]


@pytest.mark.parametrize("as_event", [True, False], ids=["as event", "as status"])
@warped
async def test_f8(tmp_path, as_event):
    """F8: 410 relists once; what was deleted meanwhile is closed if it had an incident, else nothing."""
    async with world(tmp_path) as w:
        w.server.set_ready("shop", "c", 0)
        await w.pass_time(40)
        assert w.told == ["degraded c"]
        w.server.expired_as_event = as_event
        await w.server.stop()
        w.server.delete("shop", "b")
        w.server.delete("shop", "c")
        w.server.compact()
        await w.server.start()
        await w.pass_time(60)
        assert w.told == ["degraded c", "closed c"]
        assert w.received[1][1]["data"]["resolution"] == "deleted"
        assert len(w.lists()) == 2
        assert [row["name"] for row in await w.rows()] == ["a"]


@warped
async def test_f9(tmp_path):
    """F9: ten times 410 in a row are at most ten lists in the first minute."""
    async with world(tmp_path) as w:
        w.server.faults += [Fault("watch", 410)] * 10
        w.server.reset_connections()
        await w.pass_time(60)
        assert len(w.lists(since=10)) <= 10
        await w.pass_time(100)
        await still_works(w)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("page", 410), id="F10: 410 on page 2"),
        pytest.param(Fault("page", cut=1000), id="F11: cut off in page 2"),
    ],
)
@warped
async def test_f10_f11(tmp_path, fault):
    """F10, F11: of a list of 1,200 that breaks off nothing is believed, and all are known after it."""
    async with world(tmp_path) as w:
        for number in range(1197):
            w.server.apply(deployment("shop", f"d{number}"))
        await w.pass_time(10)
        w.server.faults.append(fault)
        w.server.compact()
        w.server.reset_connections()
        w.server.faults.append(Fault("watch", 410))
        await w.pass_time(30)
        assert w.server.faults == []
        assert w.told == []
        assert len(await w.rows()) == 1200


@warped
async def test_f12(tmp_path):
    """F12: an ERROR event that has a code and nothing else."""
    async with world(tmp_path) as w:
        w.server.send(event("ERROR", {"kind": "Status", "code": 500}))
        await w.pass_time(30)
        assert len(w.lists()) == 1
        await still_works(w)


@warped
async def test_f13(tmp_path):
    """F13: a server that lags behind for 40 s: no older state is reported as new."""
    async with world(tmp_path) as w:
        before, behind = w.server.get("shop", "b"), w.server.version
        w.server.set_ready("shop", "b", 0)
        await w.pass_time(5)
        w.server.set_ready("shop", "b", 3)
        await w.pass_time(5)
        others = (w.server.get("shop", name) for name in "ac")
        stale = listing(*others, {**before, "status": {"readyReplicas": 0}}, version=behind)
        ahead = msgspec.json.encode(status(504, "Timeout", "Too large resource version", 1))
        w.server.faults += [
            Fault("watch", 504, ahead, lasts=True),
            Fault("list", 200, stale, query={"limit": "500"}, lasts=True),
        ]
        w.server.reset_connections()
        await w.pass_time(40)
        assert len(w.lists(since=20)) <= 10
        w.server.faults.clear()
        await w.pass_time(90)
        await still_works(w)


@warped
async def test_f14(tmp_path):
    """F14: a list from a stale cache, in which a is still degraded, opens nothing a second time."""
    async with world(tmp_path) as w:
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(40)
        stale = listing(*(w.server.get("shop", name) for name in "abc"), version=w.server.version)
        w.server.set_ready("shop", "a", 3)
        await w.pass_time(70)
        assert w.told == ["degraded a", "recovered a"]
        w.server.faults += [
            Fault("watch", 410),
            Fault("list", 200, stale, query={"limit": "500"}),
        ]
        w.server.reset_connections()
        await w.pass_time(10)
        assert {row["ready"] for row in await w.rows()} == {3}
        await w.pass_time(300)
        assert w.server.faults == []
        assert w.told == ["degraded a", "recovered a"]


@warped
async def test_f15(tmp_path):
    """F15: 429 with Retry-After 7, five times: no watch earlier than that, although probes succeed."""
    async with world(tmp_path, HEARTBEAT__INTERVAL="3s") as w:
        w.server.faults += [Fault("watch", 429, headers={"Retry-After": "7"})] * 5
        w.server.end_streams()
        await w.pass_time(120)
        times = [seen.at for seen in w.asked("watch", since=10)]
        assert len(times) == 6
        assert min(b - a for a, b in pairwise(times)) >= 7 * SECOND
        await still_works(w)


@warped
async def test_f16(tmp_path):
    """F16: 429 on everything for five minutes is told once as throttled; the server is alive."""
    async with world(tmp_path) as w:
        w.server.faults.append(Fault("", 429, lasts=True))
        w.server.reset_connections()
        await w.pass_time(300)
        assert w.told == ["throttled"]
        assert len(w.asked(since=w.seconds - 60)) <= 20
        w.server.faults.clear()
        await w.pass_time(90)
        assert w.told == ["throttled", "restored"]


@warped
async def test_f18(tmp_path):
    """F18: a line that is cut by a clean end comes whole after the reconnect, once."""
    async with world(tmp_path) as w:
        line = event("MODIFIED", w.server.get("shop", "b"))
        w.server.faults.append(Fault("watch", lines=line[:-40], ends=True))
        w.server.end_streams()
        await w.pass_time(5)
        assert w.server.faults == []
        await still_works(w)


@warped
async def test_f19(tmp_path):
    """F19: borders of chunks inside characters and separators of lines: a's change is told once."""
    async with world(tmp_path) as w:
        text = "snow\u2603 next\u0085line par\u2029a sep\u2028arator \U0001f600"
        changed = msgspec.json.decode(msgspec.json.encode(w.server.get("shop", "a")))
        changed["status"] |= {"readyReplicas": 0, "availableReplicas": 0}
        w.server.version += 1
        changed["metadata"]["resourceVersion"] = str(w.server.version)
        changed["metadata"]["annotations"]["deployment-watcher.dev/owner"] = text
        w.server.faults.append(Fault("watch", lines=event("MODIFIED", changed), piece=1))
        w.server.end_streams()
        await w.pass_time(60)
        assert w.told == ["degraded a"]
        [stream] = (await w.get("/health/apiserver"))["streams"]
        assert (stream["bad_lines"], stream["resource_version"]) == (0, str(w.server.version))


@warped
async def test_f20(tmp_path):
    """F20: a Deployment of 6 MiB is seen, and so are the others."""
    async with world(tmp_path) as w:
        huge = deployment(
            "shop", "huge", 3, 0, annotations={"x": "y" * (6 << 20)}, at=w.clock.now()
        )
        w.server.apply(deployment("shop", "huge", annotations={"x": "y" * (6 << 20)}))
        await w.pass_time(5)
        huge["metadata"]["uid"] = w.server.get("shop", "huge")["metadata"]["uid"]
        w.server.apply(huge)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(60)
        assert sorted(w.told) == ["degraded a", "degraded huge"]


@warped
async def test_f21(tmp_path):
    """F21: garbage, unknown types and tables between valid events: the valid ones are all seen.

    Each ends the stream, since what follows it is not to be trusted; the next goes on from before it.
    """
    async with world(tmp_path) as w:
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}
        w.server.send(b"\x00\xffgarbage\n" + event("PATCHED", w.server.get("shop", "b")))
        w.server.set_ready("shop", "c", 2)
        await w.pass_time(5)
        assert {row["name"]: row["ready"] for row in await w.rows()} == {"a": 3, "b": 3, "c": 2}
        w.server.send(event("ADDED", table))
        w.server.set_ready("shop", "c", 3)
        await w.pass_time(5)
        [stream] = (await w.get("/health/apiserver"))["streams"]
        assert (stream["bad_lines"], stream["breaks"]) == (2, {"unreadable": 2})
        assert len(w.lists()) == 1
        await still_works(w)


@warped
async def test_an_outage_behind_garbage_is_told(tmp_path):
    """A piece of an event swallows the one that a hangs on; what moves the version on comes after it."""
    async with world(tmp_path) as w:
        w.server.send(b'{"type":"MODIFIED","obj')
        await w.pass_time(0.3)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(1)
        w.server.set_ready("shop", "b", 2)
        await w.pass_time(60)
        assert w.told == ["degraded a"]
        assert len(w.lists()) == 1


@warped
async def test_f22(tmp_path):
    """F22: fifty old ADDED events of a, degraded in them, are nothing after a reconnect."""
    async with world(tmp_path) as w:
        w.server.set_ready("shop", "a", 0)
        old = event("ADDED", w.server.get("shop", "a")) * 50
        await w.pass_time(5)
        w.server.set_ready("shop", "a", 3)
        await w.pass_time(5)
        w.server.faults.append(Fault("watch", lines=old))
        w.server.end_streams()
        await w.pass_time(5)
        assert {row["ready"] for row in await w.rows()} == {3}
        await w.pass_time(300)
        assert w.server.faults == []
        await still_works(w)


@pytest.mark.parametrize("seen", [True, False], ids=["F23: seen", "F24: out of sight"])
@warped
async def test_f23_f24(tmp_path, seen):
    """F23, F24: a degraded Deployment that is replaced is closed once; its successor rolls out first."""
    async with world(tmp_path) as w:
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(40)
        if not seen:
            await w.server.stop()
        w.server.delete("shop", "a")
        successor = deployment("shop", "a", 3, 0, at=w.clock.now())
        successor["status"]["conditions"] = []
        w.server.apply(successor)
        if not seen:
            w.server.compact()
            await w.server.start()
        await w.pass_time(120)
        assert w.told == ["degraded a", "closed a"]
        assert w.received[1][1]["data"]["resolution"] == "recreated"
        [row] = [row for row in await w.rows() if row["name"] == "a"]
        assert row["health"] == "progressing"


@warped
async def test_f36(tmp_path):
    """F36: while a sink blocks for ten minutes the watch reads on; it is told what held, once."""
    async with world(tmp_path) as w:
        w.answering.clear()
        w.server.apply(deployment("shop", "big", 100))
        await w.pass_time(5)
        for number in range(500):
            w.server.set_ready("shop", "big", number % 75)
            await w.pass_time(1)
        shown = {row["name"]: row["ready"] for row in await w.rows()}
        assert shown["big"] == 499 % 75
        w.server.set_ready("shop", "big", 100)
        await w.pass_time(100)
        w.answering.set()
        await w.pass_time(120)
        assert [line for line in w.told if line != "updated big"] == [
            "degraded big",
            "recovered big",
        ]
        assert len(w.lists()) == 1


@warped
async def test_f43(tmp_path):
    """F43: a namespace is deleted with 40 Deployments, 5 of them degraded: each of the 5 is closed."""
    async with world(tmp_path) as w:
        names = [f"d{number:02}" for number in range(40)]
        for name in names:
            w.server.apply(deployment("doomed", name))
        await w.pass_time(5)
        for name in names[:5]:
            w.server.set_ready("doomed", name, 0)
        await w.pass_time(40)
        w.received.clear()
        for name in names:
            w.server.delete("doomed", name)
        await w.pass_time(120)
        assert sorted(w.told) == [f"closed {name}" for name in names[:5]]
        assert {event["data"]["resolution"] for _, event in w.received} == {"deleted"}


@warped
async def test_f39(tmp_path):
    """F39: twenty restarts in ten minutes of an outage of a are one message."""
    made = World(tmp_path)
    async with made.open():
        for _ in range(20):
            async with made.watcher():
                await made.pass_time(20)
                made.server.set_ready("shop", "a", 0)
            await made.pass_time(10)
        async with made.watcher():
            await made.pass_time(60)
    assert made.told == ["degraded a"]
