"""The network and the API server fail, and what the receiver is told of it (watch.md §5)."""

import socket
from datetime import datetime, timedelta

import pytest

from tests.faults.proxy import Proxy
from tests.faults.warp import START, warped
from tests.faults.world import world
from watcher.testing.apiserver import Fault
from watcher.testing.objects import deployment


@warped
async def test_f1(tmp_path):
    """F1: a watch that ends in order every 2 s costs no list, no flood and no event."""
    async with world(tmp_path) as w:
        w.server.streams_last = 2
        w.server.end_streams()
        await w.pass_time(60)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(240)
        assert w.told == ["degraded a"]
        assert len(w.lists()) == 1
        assert len(w.asked(since=10)) <= 300


@warped
async def test_f2(tmp_path):
    """F2: a watch that is closed at once for a minute is asked for at most 20 times, and then works."""
    async with world(tmp_path) as w:
        w.server.streams_last = 0
        w.server.end_streams()
        await w.pass_time(60)
        assert len(w.asked(since=10)) <= 20
        w.server.streams_last = None
        await w.pass_time(30)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(40)
        assert w.told == ["degraded a"]


@warped
async def test_f3(tmp_path):
    """F3: a connection that is open and silent is left after 70 s: at most that and the hold later."""
    async with world(tmp_path) as w:
        w.proxy.freeze()
        await w.pass_time(1)
        w.server.set_ready("shop", "a", 0)
        took = await w.until(lambda: w.told == ["degraded a"], within=120)
        assert took <= 70 + 30 + 1
        await w.pass_time(60)
        assert w.told == ["degraded a"]
        assert len(w.lists()) == 1


@warped
async def test_f4(tmp_path):
    """F4: ten minutes without a packet are one outage; what went down and came up in it is not told."""
    async with world(tmp_path) as w:
        w.proxy.drop()
        await w.pass_time(120)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(240)
        w.server.set_ready("shop", "a", 3)
        await w.pass_time(240)
        assert w.told == ["unreachable"]
        w.proxy.heal()
        await w.until(lambda: len(w.told) > 1, within=30)
        await w.pass_time(300)
        assert w.told == ["unreachable", "restored"]


@warped
async def test_f5(tmp_path):
    """F5: twenty seconds without a packet are nothing."""
    async with world(tmp_path) as w:
        w.proxy.drop()
        await w.pass_time(20)
        w.proxy.heal()
        await w.pass_time(300)
        assert w.told == []


@warped
async def test_f6(tmp_path):
    """F6: three minutes of outage are told once, and what broke in it and is broken after it, once."""
    async with world(tmp_path) as w:
        await w.server.stop()
        await w.pass_time(60)
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(120)
        assert w.told == ["unreachable"]
        await w.server.start()
        await w.until(lambda: "restored" in w.told, within=10)
        await w.pass_time(120)
        assert sorted(w.told) == ["degraded a", "restored", "unreachable"]


@warped
async def test_f7(tmp_path):
    """F7: API servers behind a balancer restart one after the other; nothing is told, nothing lost."""
    async with world(tmp_path) as w:
        for ready in (2, 0, 3):
            w.proxy.bad_one_in = 3
            w.proxy.reset()
            w.server.set_ready("shop", "a", ready)
            w.server.set_ready("shop", "b", 3 - ready if ready else 3)
            await w.pass_time(15)
            w.server.set_ready("shop", "a", 3)
            w.server.set_ready("shop", "b", 3)
            w.server.apply(deployment("shop", f"new-{ready}", 3, ready))
            await w.pass_time(15)
            w.proxy.bad_one_in = 0
        w.server.set_ready("shop", "new-0", 3)
        await w.pass_time(120)
        assert w.told == []
        seen = {row["name"]: row["ready"] for row in await w.rows()}
        assert seen == {"a": 3, "b": 3, "c": 3, "new-0": 3, "new-2": 2, "new-3": 3}


@warped
async def test_f17(tmp_path):
    """F17: a balancer that answers 503 in HTML for two minutes is one outage, and no crash."""
    async with world(tmp_path) as w:
        page = b"<html><h1>503 Service Unavailable</h1></html>"
        w.server.faults.append(Fault("", 503, page, {"Content-Type": "text/html"}, lasts=True))
        w.server.reset_connections()
        await w.pass_time(120)
        assert w.told == ["unreachable"]
        assert "503 (503 Service Unavailable)" in w.received[0][1]["data"]["message"]
        w.server.faults.clear()
        await w.until(lambda: "restored" in w.told, within=10)
        await w.pass_time(120)
        assert w.told == ["unreachable", "restored"]


@warped
async def test_f25(tmp_path):
    """F25: two hours of nothing but bookmarks cost no list, and what comes after them is told."""
    async with world(tmp_path, HEARTBEAT__INTERVAL="60s") as w:
        await w.pass_time(7200)
        assert w.told == []
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(32)
        assert w.told == ["degraded a"]
        assert len(w.lists()) == 1


@warped
async def test_f26(tmp_path):
    """F26: a quiet server without bookmarks is watched anew, never listed, and stays in sight."""
    async with world(tmp_path, HEARTBEAT__INTERVAL="60s") as w:
        w.server.bookmark_every = None
        w.server.end_streams()
        unknown = 0
        for _ in range(100):
            await w.pass_time(72)
            unknown += (await w.get("/health/deployments"))["status"] == "unknown"
        assert w.told == []
        assert unknown < 10, "but for the second in which it is watched anew"
        assert len(w.lists()) == 1
        # Two fell silent after 70 s; from then on each is asked for three quarters of that.
        assert len(w.asked("watch", since=10)) <= 7200 / 52 + 2
        [stream] = (await w.get("/health/apiserver"))["streams"]
        assert (stream["breaks"]["silent"], stream["shortened_by"]) == (2, "silent")
        w.server.set_ready("shop", "a", 0)
        await w.pass_time(32)
        assert w.told == ["degraded a"]


@warped
async def test_f34(tmp_path, monkeypatch):
    """F34: the API server's name leads elsewhere, to IPv6 only: one outage at most, ended by itself."""
    asks, leads_to = socket.getaddrinfo, ["127.0.0.1"]

    def getaddrinfo(host, *more, **options):
        return asks(leads_to[0] if host == "api.test" else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("no_proxy", "*")
    async with world(tmp_path, host="api.test") as w:
        elsewhere = Proxy(w.server.port, "::1")
        elsewhere.port = w.proxy.port
        await w.proxy.refuse()
        w.proxy.reset()
        await w.pass_time(60)
        leads_to[:] = ["::1"]
        async with elsewhere:
            w.server.set_ready("shop", "a", 0)
            await w.pass_time(120)
            assert sorted(w.told) == ["degraded a", "restored", "unreachable"]
            assert elsewhere.connections > 0


@warped
async def test_f46(tmp_path):
    """F46: a heartbeat that fails while the watch delivers makes no outage, and blinds nobody."""
    async with world(tmp_path) as w:
        w.server.faults.append(Fault("list", 500, query={"limit": "1"}, lasts=True))
        for _ in range(20):
            w.server.set_ready("shop", "c", 3)
            await w.pass_time(10)
        w.server.set_ready("shop", "a", 0)
        for _ in range(30):
            w.server.set_ready("shop", "c", 3)
            await w.pass_time(2)
        assert w.told == ["degraded a"]


@warped
async def test_f47(tmp_path):
    """F47: a watch that cannot be had is told once as a stale view, which lists keep right meanwhile."""
    async with world(tmp_path) as w:
        w.server.faults.append(Fault("watch", cut=0, lasts=True))
        w.server.reset_connections()
        await w.pass_time(100)
        w.server.set_ready("shop", "b", 2)
        changed = w.clock.now()
        await w.pass_time(70)
        shown = await w.get("/health/deployments")
        assert [row["ready"] for row in shown["deployments"]] == [3, 2, 3]
        assert datetime.fromisoformat(shown["as_of"]) > changed
        assert w.told == []
        await w.pass_time(130)
        assert w.told == ["view_stale"]
        w.server.set_ready("shop", "b", 3)
        w.server.set_ready("shop", "a", 1)
        await w.pass_time(240)
        shown = await w.get("/health/deployments")
        assert (shown["status"], shown["deployments"][0]["ready"]) == ("unknown", 3)
        told = START + timedelta(seconds=w.told_at("view_stale"))
        assert datetime.fromisoformat(shown["as_of"]) <= told
        [reason] = (await w.get("/readyz"))["reasons"]
        assert "s old: cannot watch deployments.apps at cluster scope: " in reason
        assert len(w.asked(since=w.seconds - 60)) <= 20
        w.server.faults.clear()
        await w.until(lambda: "restored" in w.told, within=35)
        await w.pass_time(60)
        assert sorted(w.told) == ["degraded a", "restored", "view_stale"]


@pytest.mark.parametrize("down", [45, 600])
@pytest.mark.parametrize("how", ["refused", "dropped", "503", "restarting"])
@warped
async def test_quick_return(tmp_path, how, down):
    """Within 3 s of the first answer after an outage of any kind and length, events reach the receiver."""
    async with world(tmp_path, HEALTH__NONE_AVAILABLE_FOR="0s") as w:
        match how:
            case "refused":
                await w.server.stop()
            case "dropped":
                w.proxy.drop()
            case _:
                w.server.faults.append(Fault("", 503, lasts=True))
                w.server.reset_connections()
        await w.pass_time(down)
        w.server.set_ready("shop", "a", 0)
        match how:
            case "refused":
                await w.server.start()
            case "dropped":
                w.proxy.heal()
                w.proxy.reset()
            case "503":
                w.server.faults.clear()
            case _:
                w.server.faults[:] = [Fault("", 403, lasts=True)]
                await w.pass_time(20)
                w.server.faults.clear()
        back = w.seconds
        await w.until(lambda: "degraded a" in w.told, within=20)
        took = w.told_at("degraded a") - back
        assert took <= 5 + 3, "5 s at most until it is asked"
        if how != "dropped":  # there the server also gets what was sent before, and cannot answer
            answered = (w.asked(since=back)[0].at - START).total_seconds() - back
            assert took - answered <= 3
