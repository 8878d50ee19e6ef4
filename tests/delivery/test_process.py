"""The whole program with several sinks: what one needs again, and what one says of another."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.fault_server import FaultServer, answers
from tests.logs import captured
from watcher import audit
from watcher.app import run
from watcher.config.load import load
from watcher.core.model import Json
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment

HOLDS = {"degraded_for": "0s", "none_available_for": "0s", "recovered_for": "0s"}


def alerts(server: FaultServer, deployment: str) -> list[Json]:
    """Those of one Deployment or sink, as they were pushed."""
    pushed = [alert for request in server.requests for alert in json.loads(request.body)]
    return [one for one in pushed if deployment in one["labels"].values()]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(9):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # noqa: TID251 - a real process' worth of sockets


async def test_alerts_are_repeated_and_a_failing_sink_is_one(tmp_path: Path) -> None:
    """What stands is pushed at each interval until it has ended; a sink that is refused is an alert."""
    server = FakeApiServer()
    server.apply(deployment("shop", "web", 3))
    await server.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(server.kubeconfig()))
    stop, ready = asyncio.Event(), asyncio.Event()
    async with FaultServer(answers(200)) as peer, FaultServer(answers(401)) as hook:
        file = tmp_path / "config.yaml"
        sinks = [
            {"name": "am", "type": "alertmanager", "urls": [peer.url], "interval": "200ms"},
            {"name": "hook", "type": "webhook", "url": hook.url},
        ]
        settings = {
            "clusters": [{"name": "prod", "kubeconfig": str(kubeconfig)}],
            "store": {"url": f"sqlite:///{tmp_path / 'watcher.db'}"},
            "web": {"address": "127.0.0.1:0"}, "health": HOLDS, "sinks": sinks,
        }  # fmt: skip
        file.write_text(json.dumps(settings))
        with captured() as log:
            audit.configure(log, "info", json=True)
            running = asyncio.create_task(
                run(load(file, {}, {}), ready=lambda _: ready.set(), stop=stop)
            )
            await ready.wait()
            await server.until(lambda: server.watches > 0)
            server.set_ready("shop", "web", 0)
            await until(lambda: len(alerts(peer, "web")) >= 3)
            assert {one["labels"]["severity"] for one in alerts(peer, "web")} == {"critical"}
            assert len({one["endsAt"] for one in alerts(peer, "web")}) >= 3, "each lasts anew"
            await until(lambda: bool(alerts(peer, "hook")))
            assert alerts(peer, "hook")[0]["labels"] == {
                "alertname": "WatcherSinkFailing", "sink": "hook", "severity": "warning",
            }  # fmt: skip
            server.set_ready("shop", "web", 3)
            await until(lambda: "Recovered" in alerts(peer, "web")[-1]["annotations"]["summary"])
            assert len(hook.requests) == 1
            stop.set()
            await running
    await server.stop()
    handed_over = "SELECT DISTINCT sink FROM deliveries WHERE first_attempt_at = recorded_at"
    with closing(sqlite3.connect(tmp_path / "watcher.db")) as db:
        found = {sink for (sink,) in db.execute(handed_over)}
    assert found == {"am", "hook"}, "the commit has handed it to the idle sink"
