"""Several clusters in one process: each with its own heartbeat, its own fate and its own words."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.client import Json
from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.fault_server import FaultServer, answers
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment

REFUSED = answers(503)
SHORT = {"none_available_for": "200ms", "degraded_for": "200ms", "recovered_for": "200ms"}


class Region:
    """An API server with one Deployment, `shop/web`."""

    def __init__(self, folder: Path, name: str, **cluster: object) -> None:
        self.server = FakeApiServer()
        self.server.apply(deployment("shop", "web", labels={"team": "web"}))
        self._kubeconfig = folder / name
        self.settings = {"name": name, "kubeconfig": str(folder / name), **cluster}

    async def start(self) -> None:
        await self.server.start()
        self._kubeconfig.write_text(json.dumps(self.server.kubeconfig()))


async def wait(holds: Callable[[], object], instead: Callable[[], object] | None = None) -> None:
    """Poll from a thread, so that the servers of this test go on."""
    await asyncio.to_thread(eventually, lambda: holds() or None, 15, instead)


def told(hook: FaultServer) -> list[str]:
    """What has arrived: `east degraded web`, `west unreachable`."""
    lines = []
    for request in hook.requests:
        event: Json = json.loads(request.body)
        kind = event["type"].split(".")[-2]
        lines.append(f"{event['data']['cluster']} {kind} {event['data'].get('name', '')}".rstrip())
    return lines


async def test_each_cluster_has_its_own_fate(tmp_path: Path) -> None:
    """One goes: it alone is told, the other's news go on, and the ping waits until it was told."""
    east, west = Region(tmp_path, "east"), Region(tmp_path, "west")
    await east.start()
    await west.start()
    async with FaultServer(answers(204)) as hook, FaultServer(answers(200)) as monitor:
        watcher = WatcherProcess(
            tmp_path,
            {
                "clusters": [east.settings, west.settings],
                "heartbeat": {"interval": "100ms"},
                "health": SHORT,
                "sinks": [{"name": "hook", "type": "webhook", "url": hook.url}],
                "dead_man": {"url": monitor.url, "interval": "100ms"},
            },
        )
        try:
            await asyncio.to_thread(watcher.start_fresh)
            await wait(lambda: len(monitor.requests) > 2)
            hook.usual = REFUSED
            await west.server.stop()
            await wait(lambda: "west unreachable" in told(hook))
            await wait(lambda: "dead_man" in watcher.get("/readyz")[1])
            pings = len(monitor.requests)
            east.server.set_ready("shop", "web", 0)
            await wait(lambda: "east degraded web" in told(hook))
            assert len(monitor.requests) == pings
            status, answer = await asyncio.to_thread(watcher.get, "/health/apiserver")
            assert (status, [c["status"] for c in answer["clusters"]]) == (500, ["ok", "error"])
            for cluster, expected in (("east", "degraded"), ("west", "unknown")):
                path = f"/health/deployments?cluster={cluster}"
                assert (await asyncio.to_thread(watcher.get, path))[1]["status"] == expected

            hook.usual = answers(204)
            await wait(lambda: len(monitor.requests) > pings)
            east.server.set_ready("shop", "web", 3)
            await wait(lambda: "east recovered web" in told(hook), lambda: told(hook))
            await west.server.start()
            await wait(lambda: "west restored" in told(hook), lambda: told(hook))
            lines = [
                line["event"] for line in watcher.audit if line["event"].startswith("dead_man")
            ]
            assert lines[-2:] == ["dead_man.withheld", "dead_man.resumed"]
        finally:
            watcher.stop()
            await east.server.stop()
            await west.server.stop()


async def test_what_is_selected_no_more_left_scope(tmp_path: Path) -> None:
    """Its label goes while it is degraded: told as left_scope, and one that is deleted as deleted."""
    region = Region(tmp_path, "east", label_selector="team=web")
    region.server.apply(deployment("shop", "api", labels={"team": "web"}))
    region.server.apply(deployment("shop", "other", labels={"team": "other"}))
    await region.start()
    async with FaultServer(answers(204)) as hook:
        sinks = [{"name": "hook", "type": "webhook", "url": hook.url}]
        watcher = WatcherProcess(
            tmp_path, {"clusters": [region.settings], "health": SHORT, "sinks": sinks}
        )
        try:
            await asyncio.to_thread(watcher.start_fresh)
            for name in ("web", "api", "other"):
                region.server.set_ready("shop", name, 0)
            await wait(lambda: len(told(hook)) == 2)
            obj = json.loads(json.dumps(region.server.get("shop", "web")))
            obj["metadata"]["labels"] = {}
            region.server.apply(obj)
            region.server.delete("shop", "api")
            await wait(lambda: len(told(hook)) == 4, lambda: told(hook))
        finally:
            watcher.stop()
            await region.server.stop()
    events = [json.loads(request.body)["data"] for request in hook.requests]
    ends = {e["name"]: e["resolution"] for e in events if "resolution" in e}
    assert ends == {"web": "left_scope", "api": "deleted"}
    assert {e["name"] for e in events} == {"web", "api"}
