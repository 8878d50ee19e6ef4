"""What a pair of real Alertmanagers makes of what is pushed to them."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.alertmanager.real import AlertmanagerUnavailable, Peer, locate, pair
from tests.controlplane.receivers import eventually
from tests.delivery.rig import WARNING, Rig, rig
from tests.events import event, notification
from watcher.clock import SystemClock
from watcher.core.events import Edge
from watcher.restating import Restating
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.http import Sender
from watcher.testing.clock import ManualClock


class Receiver:
    """What the pair sends on, as `firing web critical`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        for alert in json.loads(await request.read())["alerts"]:
            labels = alert["labels"]
            self.told.append(f"{alert['status']} {labels['deployment']} {labels['severity']}")
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made, app = Receiver(), web.Application()
    app.router.add_post("/", made.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "http://127.0.0.1:{1}/".format(*runner.addresses[0])
    yield made
    await runner.cleanup()


@pytest.fixture
async def peers(
    request: pytest.FixtureRequest, binary: Path, tmp_path: Path, receiver: Receiver
) -> AsyncIterator[tuple[Peer, Peer]]:
    with_pair = pair(binary, tmp_path, receiver.url, getattr(request, "param", ["..."]))
    yield await asyncio.to_thread(with_pair.__enter__)
    await asyncio.to_thread(with_pair.__exit__, None, None, None)


def sink_for(*peers: Peer) -> Alertmanager:
    urls = [lambda url=peer.url: url for peer in peers]
    return Alertmanager("am", Sender(SystemClock()), urls=urls)


def restating(it: Rig, sink: Alertmanager) -> Restating:
    return Restating(sink, it.store, it.clock, it.reporting)


def clock() -> ManualClock:
    return ManualClock(SystemClock().wall())


async def until(receiver: Receiver, *told: str) -> None:
    wanted = sorted(told)
    await asyncio.to_thread(
        eventually, lambda: sorted(receiver.told) == wanted, 20, lambda: receiver.told
    )


async def test_an_incident_fires_at_both_and_is_resolved(
    tmp_path: Path, peers: tuple[Peer, Peer], receiver: Receiver
) -> None:
    """Both peers know it, the pair tells it once, and its end is an end there too."""
    sink = sink_for(*peers)
    async with rig(tmp_path, sink, clock=clock()) as it:
        await it.opens("web")
        await it.passes()
        assert [peer.names for peer in peers] == [["web critical"]] * 2
        (alert,) = peers[0].active
        assert alert["labels"] == {
            "alertname": "DeploymentDegraded", "cluster": "prod", "namespace": "shop",
            "deployment": "web", "severity": "critical",
        }  # fmt: skip
        assert alert["annotations"]["summary"] == "Unavailable: shop/web in prod"
        ends = datetime.fromisoformat(alert["endsAt"])
        assert abs(ends - it.clock.now() - timedelta(minutes=4)) < timedelta(seconds=20)
        await until(receiver, "firing web critical")
        it.clock.set(SystemClock().wall())
        await it.ends("web")
        await it.passes()
        assert [peer.active for peer in peers] == [[], []]
        await until(receiver, "firing web critical", "resolved web critical")


@pytest.mark.parametrize("peers", [["alertname", "cluster", "namespace"]], indirect=True)
async def test_an_outage_that_was_critical_from_the_start_ends_once(
    tmp_path: Path, peers: tuple[Peer, Peer], receiver: Receiver
) -> None:
    """Grouped as most people do, the alert of a severity that it never had would be listed as well."""
    sink = sink_for(*peers)
    async with rig(tmp_path, sink, clock=clock()) as it:
        await it.opens("web")
        await it.passes()
        await until(receiver, "firing web critical")
        it.clock.set(SystemClock().wall())
        await it.ends("web")
        await it.passes()
        await restating(it, sink).step(it.clock.now())
        await until(receiver, "firing web critical", "resolved web critical")


async def test_nothing_to_say_is_an_answer_still(tmp_path: Path, peers: tuple[Peer, Peer]) -> None:
    """The end of what nobody was told: that the peers took it shows that they work."""
    await sink_for(*peers).send(notification(event(Edge.RECOVERED)))
    assert [peer.names for peer in peers] == [[]] * 2


async def test_what_gets_worse_is_one_alert_still(
    tmp_path: Path, peers: tuple[Peer, Peer], receiver: Receiver
) -> None:
    """The alert of the former severity is resolved, since another label is another alert."""
    async with rig(tmp_path, sink_for(*peers), clock=clock()) as it:
        await it.opens("web", severity=WARNING)
        await it.passes()
        await until(receiver, "firing web warning")
        it.clock.set(SystemClock().wall())
        await it.changes("web")
        await it.passes()
        assert [peer.names for peer in peers] == [["web critical"]] * 2
        await until(receiver, "firing web warning", "resolved web warning", "firing web critical")


async def test_a_peer_that_was_down_is_told_again(tmp_path: Path, peers: tuple[Peer, Peer]) -> None:
    """Row 63: the other peer has it at once, this one with the next round, even if it forgot all."""
    first, second = peers
    sink = sink_for(*peers)
    async with rig(tmp_path, sink, clock=clock()) as it:
        await it.opens("before")
        await it.passes()
        await asyncio.to_thread(first.stop)
        await it.opens("web")
        await it.ends("before")
        await it.passes()
        assert second.names == ["web critical"]
        assert set((await it.states("am")).values()) == {"delivered"}
        assert b"failures_total{" not in it.metrics.render([])
        await restating(it, sink).step(it.clock.now())
        assert b'failures_total{reason="connection_refused",sink="am"} 1.0' in it.metrics.render([])
        assert it.view.sink_troubles == {}
        await asyncio.to_thread(first.start)
        await restating(it, sink).step(it.clock.now())
        assert [peer.names for peer in peers] == [["web critical"]] * 2


async def test_both_forget_and_the_watcher_restarts(
    tmp_path: Path, peers: tuple[Peer, Peer]
) -> None:
    """Its outage is survived: what was sent meanwhile arrives, and what stood before stands again."""
    sink = sink_for(*peers)
    async with rig(tmp_path, sink, clock=clock()) as it:
        await it.opens("web", "api")
        await it.passes()
        for peer in peers:
            await asyncio.to_thread(peer.stop, wiped=True)
        await it.ends("api")
        await it.passes(20)
        assert (await it.states("am"))["api/2 event"] == "pending"
        await restating(it, sink).step(it.clock.now())
        assert "connection refused" in it.view.sink_troubles["am"]
        for peer in peers:
            await asyncio.to_thread(peer.start)
        await it.passes(60)
        assert set((await it.states("am")).values()) == {"delivered"}
    again = sink_for(*peers)
    async with rig(tmp_path, again, clock=clock()) as it:
        await restating(it, again).step(it.clock.now())
        assert [peer.names for peer in peers] == [["web critical"]] * 2
        assert it.view.sink_troubles == {}


async def test_the_late_end_of_an_earlier_incident(peers: tuple[Peer, Peer]) -> None:
    """It does not resolve the alert, which is the newer incident's by now."""
    sink, now = sink_for(*peers), SystemClock().wall()
    began = now - timedelta(minutes=9)
    newer = event(Edge.DEGRADED, incident="02")
    newer = replace(newer, at=now, since=began, opened_at=now - timedelta(seconds=1))
    older = event(Edge.RECOVERED, sequence=2, incident="01")
    older = replace(older, at=now - timedelta(minutes=1), since=began, opened_at=began)
    opening = replace(older, edge=Edge.DEGRADED, sequence=1)
    late = replace(notification(older), told=(opening,))
    for one in (notification(newer), late):
        await sink.send(one)
    assert [peer.names for peer in peers] == [["checkout critical"]] * 2
    await sink.restate([late, notification(newer)])
    assert [peer.names for peer in peers] == [["checkout critical"]] * 2
    ended = notification(replace(older, at=now, incident="02"))
    await sink.send(replace(ended, told=(newer,)))
    assert [peer.names for peer in peers] == [[]] * 2


def test_a_machine_that_cannot_build_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how to do without."""
    go = tmp_path / "go"
    go.write_text(
        "#!/bin/sh\n[ $1 = version ] && echo go version go1.99.0 linux/amd64 && exit\nexit 1"
    )
    go.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(AlertmanagerUnavailable) as caught:
        locate(lambda _: None)
    told = str(caught.value)
    assert told.startswith("no Alertmanager: ")
    assert told.endswith("exit code 1 (WITHOUT=alertmanager leaves its tests out)")
