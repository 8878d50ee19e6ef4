"""A status change at the API server until its bytes are at a webhook, durable commit included.

The watcher is a process of its own; API server and receiver are here. The clock runs from when the
server has the change, before it writes it to the watch, until the receiver has read the last byte.
"""

import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from watcher.testing.apiserver import FakeApiServer
from watcher.testing.objects import deployment

CHANGES = 300


def main() -> None:
    """Print the median and the 99th percentile beside two bare commits of the same run."""
    with tempfile.TemporaryDirectory() as folder:
        changes, commits = asyncio.run(_measured(Path(folder)))
    p50, p99 = _percentiles(changes)
    commit50, commit99 = _percentiles(commits)
    goal = 2 * commit50 + 3
    print(f"bare commit of four rows : p50 {commit50:6.2f} ms  p99 {commit99:6.2f} ms")
    print(f"change → webhook         : p50 {p50:6.2f} ms  p99 {p99:6.2f} ms")
    print(f"against 2 commits + 3 ms : {p50 / goal:6.0%} of {goal:.2f} ms (goal at most 100 %)")


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


async def _measured(folder: Path) -> tuple[list[float], list[float]]:
    """Changes and bare commits in turn, so that a noisy machine is unfair to both."""
    server, arrived = FakeApiServer(), asyncio.Queue[float]()
    receiver = await asyncio.start_server(lambda *ends: _receive(arrived, *ends), "127.0.0.1", 0)
    server.apply(deployment("shop", "checkout", 3))
    await server.start()
    command = (sys.executable, "-m", "watcher", "run")
    variables = _variables(folder, server, receiver.sockets[0].getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | variables, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        await server.until(lambda: server.watches > 0)
    await asyncio.sleep(2)
    took, commits, database = [], [], _bare(folder / "bare.db")
    for number in range(CHANGES):
        commits.append(_commit(database))
        server.set_ready("shop", "checkout", 0 if number % 2 == 0 else 3)
        began = time.perf_counter()
        took.append(await arrived.get() - began)
        await asyncio.sleep(0.01)
    process.terminate()
    await process.wait()
    await server.stop()
    receiver.close()
    database.close()
    return took, commits


async def _receive(
    arrived: asyncio.Queue[float], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Take one request in, and say when it was there."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
    arrived.put_nowait(time.perf_counter())
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


def _variables(folder: Path, server: FakeApiServer, port: int) -> dict[str, str]:
    Path(folder, "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    sink = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{port}/"}
    return {
        "WATCHER_CLUSTERS": json.dumps([{"kubeconfig": str(folder / "kubeconfig")}]),
        "WATCHER_SINKS": json.dumps([sink]),
        "WATCHER_STORE__URL": f"sqlite:///{folder}/watcher.db",
        "WATCHER_WEB__ADDRESS": "127.0.0.1:0",
        "WATCHER_HEALTH__NONE_AVAILABLE_FOR": "0s",
        "WATCHER_HEALTH__RECOVERED_FOR": "0s",
        "WATCHER_HEALTH__FLAPPING": '{"cycles": 1000, "episodes": 1000}',
    }


def _bare(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
    return db


def _commit(db: sqlite3.Connection) -> float:
    began = time.perf_counter()
    db.execute("BEGIN IMMEDIATE")
    for _ in range(4):
        db.execute("INSERT INTO t (body) VALUES (?)", ("x" * 300,))
    db.execute("COMMIT")
    return time.perf_counter() - began
