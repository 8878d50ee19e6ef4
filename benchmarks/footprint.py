"""Time to ready and memory with 10,000 Deployments, as a process of its own."""

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import psutil

from watcher.clock import SystemClock
from watcher.cluster.decode import decode_page
from watcher.core.model import Subject
from watcher.core.policy import HealthPolicy
from watcher.observer import Observer
from watcher.ports import Claim, Listed, Looked, Opened, Record, Stream
from watcher.recording import Recorder
from watcher.stores.sql import SqlStore
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment
from watcher.view import ClusterView

MANY, FEW = 10_000, 1
IDLE_SECONDS = 20


def main() -> None:
    """Start with one Deployment and with many; the difference is theirs."""
    few = asyncio.run(_start(FEW))
    many = asyncio.run(_start(MANY))
    print(
        f"ready from process start : {many[0]:6.2f} s with {MANY:,}, {few[0]:.2f} s with {FEW} (goal 4 s)"
    )
    print(f"ready from the first list: {many[1]:6.2f} s (goal 2 s)")
    print(
        f"resident, after the list : {many[2]:6.1f} MB with {MANY:,}, {few[2]:.1f} MB with {FEW} (goal 150 MB)"
    )
    print(f"most while it listed     : {many[4]:6.1f} MB; again, unchanged: {many[5]:.1f} MB")
    print(f"per Deployment, live     : {_live() / 1024:6.2f} KB (goal 1 KB)")
    print(f"idle CPU over {IDLE_SECONDS} s       : {many[3]:6.3%} of a core (goal 0.1 %)")


def _live() -> float:
    """Bytes that the view holds for each Deployment, decoded from pages as a list delivers them."""
    objects = (deployment(f"team-{n % 50}", f"app-{n}", 3) for n in range(MANY))
    items = [{**o, "metadata": {**o["metadata"], "resourceVersion": "1"}} for o in objects]
    head = {"kind": "DeploymentList", "metadata": {"resourceVersion": "1"}}
    pages = [json.dumps(head | {"items": items[n : n + 500]}).encode() for n in range(0, MANY, 500)]
    now = SystemClock().now()
    stream = Stream(last_byte_at=now)
    view = ClusterView("bench", [""], lambda _: stream, timedelta(minutes=1), now)
    recorder = Recorder("bench", _Nowhere(), [], _ignore, _ignore)
    observer = Observer(view, recorder, HealthPolicy(), _see_nothing, False)
    del items
    tracemalloc.start()
    found = tuple(s for page in pages for s in decode_page(page, "bench").snapshots)
    asyncio.run(observer.apply([Listed("", found), Opened("")], now))
    del found
    gc.collect()
    live = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return live / len(view.tracked)


class _Nowhere(SqlStore):
    """Takes every record and keeps none, so that only the view is measured."""

    def __init__(self) -> None:
        """It needs no database."""

    async def record(
        self, record: Record, at: datetime, idle: Collection[str] = ()
    ) -> Mapping[str, Claim]:
        """Forget it."""
        return {}


async def _see_nothing(_: Sequence[Subject]) -> Looked:
    return {}


def _ignore(_: object) -> None:
    """Nobody is told."""


async def _start(count: int) -> tuple[float, float, float, float, float, float]:
    server = FakeApiServer()
    for number in range(count):
        server.apply(deployment(f"team-{number % 50}", f"app-{number}", 3))
    await server.start()
    with tempfile.TemporaryDirectory() as folder:
        port = 18_000 + os.getpid() % 10_000
        Path(folder, "kubeconfig").write_text(json.dumps(server.kubeconfig()))  # noqa: ASYNC240
        environment = {
            **os.environ,
            "WATCHER_CLUSTERS": json.dumps([{"kubeconfig": f"{folder}/kubeconfig"}]),
            "WATCHER_STORE__URL": f"sqlite:///{folder}/watcher.db",
            "WATCHER_WEB__ADDRESS": f"127.0.0.1:{port}",
        }
        began = time.time()
        watcher = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "watcher",
            "run",
            env=environment,
            stderr=asyncio.subprocess.DEVNULL,
        )
        ready = await _ready(f"http://127.0.0.1:{port}/readyz")
        first_list = next(seen.at.timestamp() for seen in server.requests if seen.verb == "list")
        await asyncio.sleep(3)
        process = psutil.Process(watcher.pid)
        resident, busy = process.memory_info().rss / 1e6, sum(process.cpu_times()[:2])
        await asyncio.sleep(IDLE_SECONDS)
        idle = (sum(process.cpu_times()[:2]) - busy) / IDLE_SECONDS
        first = _most(watcher.pid)
        server.version += 1
        server.compact()
        before = len(server.requests)
        server.reset_connections()  # the watch goes on from a version that is too old: 410
        await server.until(lambda: [s.verb for s in server.requests[before:]].count("watch") == 2)
        again = _most(watcher.pid)
        watcher.terminate()
        await watcher.wait()
    await server.stop()
    return ready - began, ready - first_list, resident, idle, first, again


def _most(pid: int) -> float:
    """Megabytes that were ever resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1e3


async def _ready(url: str) -> float:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return time.time()
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
