"""Transitions committed and delivered, for both stores; and what a long queue costs at a start."""

import asyncio
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import aiohttp
import psutil
import psycopg

from benchmarks.footprint import _ready
from tests.deliveries import NOW, event, told
from tests.postgres import Postgres
from watcher import audit
from watcher.clock import SystemClock
from watcher.config.secrets import Written
from watcher.core.events import Incident
from watcher.core.model import Severity
from watcher.core.phases import Firing
from watcher.dispatcher import Dispatcher
from watcher.metrics import Metrics
from watcher.ports import Record, Saved
from watcher.reporting import Reporting
from watcher.sinks.http import Sender
from watcher.sinks.webhook import Webhook
from watcher.stores.database import migrate, open_store
from watcher.testing.apiserver import FakeApiServer
from watcher.view import View

TRANSITIONS, PENDING, MANY = 2_000, 10_000, 100_000
_FOUR_ROWS = [
    "CREATE TABLE t (id INTEGER, body TEXT)",
    *["INSERT INTO t VALUES (1, '" + "x" * 300 + "')"] * 4,
]


def main() -> None:
    """Each ratio is of numbers from the same run."""
    audit.configure(io.StringIO(), "error", json=True)
    with tempfile.TemporaryDirectory() as folder, _postgres() as server:
        posts = asyncio.run(_bare_posts())
        print(f"bare sender               : {posts:7,.0f} posts/s")
        sqlite = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
        sqlite.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        both: list[tuple[str, str, sqlite3.Connection | psycopg.Connection]] = [
            ("SQLite", f"sqlite:///{folder}/watcher.db", sqlite),
            ("PostgreSQL", server.database(), psycopg.connect(server.database(), autocommit=True)),
        ]
        for name, url, connection in both:
            commits = _bare_commits(connection)
            whole = asyncio.run(_delivered(url))
            ideal = 1 / (3 / commits + 1 / posts)  # recorded, claimed, settled; and posted
            print(f"{name:10} bare commits   : {commits:7,.0f} /s, of four rows")
            print(f"{name:10} delivered      : {whole:7,.0f} transitions/s")
            print(f"{name:10} ratio          : {whole / ideal:7.0%} of three commits and a post")
        ready, drained = asyncio.run(_started(Path(folder), PENDING, answered=True))
        print(f"{PENDING:,} pending at start  : ready {ready:.2f} s, drained {drained:.1f} s")
        for count in (1, MANY):
            _, resident = asyncio.run(_started(Path(folder), count, answered=False))
            print(f"resident, pending {count:7,} : {resident:7.1f} MB")


@contextmanager
def _postgres() -> Iterator[Postgres]:
    """As it is installed: with every commit on disk."""
    server = Postgres(Path(tempfile.mkdtemp(prefix="watcher-bench-")))
    server.execute("ALTER SYSTEM SET fsync = on")
    server.execute("SELECT pg_reload_conf()")
    yield server
    server.stop()


def _bare_commits(connection: "sqlite3.Connection | psycopg.Connection") -> float:
    with closing(connection):
        create, *inserts = _FOUR_ROWS
        connection.execute(create)
        began = time.perf_counter()
        for _ in range(TRANSITIONS // 4):
            connection.execute("BEGIN")
            for insert in inserts:
                connection.execute(insert)
            connection.execute("COMMIT")
        return TRANSITIONS / 4 / (time.perf_counter() - began)


@asynccontextmanager
async def _receiver(count: int) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.receiver", str(count), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    try:
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.kill()
        await process.wait()


async def _bare_posts() -> float:
    """Four at a time, as many as a webhook gets."""
    async with _receiver(1) as (url, _):
        sender, left = Sender(SystemClock()), iter(range(TRANSITIONS))

        async def post() -> None:
            for number in left:
                await sender.post(url, b"x" * 1000, {"webhook-id": str(number)})

        began = time.perf_counter()
        await asyncio.gather(*(post() for _ in range(4)))
        return TRANSITIONS / (time.perf_counter() - began)


async def _delivered(url: str) -> float:
    migrate(url)
    store, clock, view = open_store(url, exclusive=True), SystemClock(), View()
    await store.acquire()
    async with _receiver(TRANSITIONS) as (target, process):
        sink = Webhook("hook", Sender(clock), url=Written(target).read)
        dispatcher = Dispatcher(sink, store, clock, Reporting(view, Metrics(view, clock)))
        running = asyncio.create_task(dispatcher.run())
        began = time.time()
        for number in range(TRANSITIONS):
            await store.record(_record(number), clock.now())
            dispatcher.wake()
        assert process.stdout is not None
        took = float(await process.stdout.readline()) - began
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await store.close()
    return TRANSITIONS / took


def _record(number: int) -> Record:
    one = event(number)
    incident = Incident(one.incident, NOW, NOW, "below_minimum", Severity.WARNING, one.message, 1)
    record = told(one)
    return Record((Saved(one.subject, Firing(incident)),), (), record.events, record.deliveries)


async def _started(folder: Path, count: int, *, answered: bool) -> tuple[float, float]:
    """Seconds to ready and until all were delivered; or, with nobody there, megabytes."""
    path = folder / f"{count}-{answered}.db"
    store, now = open_store(f"sqlite:///{path}"), SystemClock().wall()
    for first in range(0, count, 1000):
        records = [told(event(n)) for n in range(first, min(first + 1000, count))]
        events = tuple(e for r in records for e in r.events)
        deliveries = tuple(d for r in records for d in r.deliveries)
        await store.record(Record((), (), events, deliveries), now)
    await store.close()
    server = FakeApiServer()
    await server.start()
    async with _receiver(count) as (target, receiver):
        port = 18_000 + os.getpid() % 10_000
        (folder / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
        sink = {"name": "hook", "type": "webhook", "url": target if answered else _NOBODY}
        variables = {
            "WATCHER_CLUSTERS": json.dumps([{"kubeconfig": f"{folder}/kubeconfig"}]),
            "WATCHER_STORE__URL": f"sqlite:///{path}",
            "WATCHER_STORE__QUEUE_CAP": "1000000",  # or its alarm would wait, too
            "WATCHER_WEB__ADDRESS": f"127.0.0.1:{port}",
            "WATCHER_SINKS": json.dumps([sink]),
        }
        began = time.time()
        watcher = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "watcher", "run",
            env=os.environ | variables, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ready = await _ready(f"http://127.0.0.1:{port}/readyz") - began
            if answered:
                assert receiver.stdout is not None
                return ready, float(await receiver.stdout.readline()) - began
            await asyncio.sleep(10)
            metrics = f"http://127.0.0.1:{port}/metrics"  # a scrape counts the whole queue
            async with aiohttp.ClientSession() as session, session.get(metrics) as answer:
                assert f" {count}.0" in await answer.text()
            return ready, psutil.Process(watcher.pid).memory_info().rss / 1e6
        finally:
            watcher.terminate()
            await watcher.wait()
            await server.stop()


_NOBODY = "http://127.0.0.1:1/"
