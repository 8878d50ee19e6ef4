"""A writer that is frozen at any statement: another takes over, and it writes nothing more.

Its lease has run out, so that nobody waits for that: what is measured is how long a takeover takes
beyond the lease.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.chaos.lives import CONTEXT
from tests.chaos.test_replicas import role, writes_within
from tests.chaos.turnstile import ANY, STATEMENTS, turnstile
from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.deliveries import NOW, event, told
from tests.outside import Outside
from tests.postgres import Postgres, execute, expire
from watcher.core.delivery import DeliveryState
from watcher.core.model import Subject
from watcher.core.phases import Steady
from watcher.errors import Deposed, StoreError
from watcher.ports import Record, Saved, Settlement
from watcher.stores.database import migrate, open_store
from watcher.stores.schema import metadata
from watcher.stores.sql import SqlStore

AT_ONCE = 16
LEASE, PROMISED = 12.0, 20.0
TABLES = [name for name in metadata.tables if name != "leases"]


@pytest.fixture(params=["postgres", "older_postgres"], ids=["18", "15"])
def server(request: pytest.FixtureRequest) -> Postgres:
    """With a `transaction_timeout`, and without."""
    found: Postgres = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(server: Postgres) -> str:
    made = server.database()
    migrate(made)
    return made


def contents(url: str) -> Sequence[Sequence[tuple[Any, ...]]]:
    """All that is in the store but for the lease."""
    return [execute(url, f"SELECT * FROM {name} ORDER BY 1, 2") for name in TABLES]


async def take_over(rival: SqlStore) -> float:
    """Ask as a standby does; gives the seconds that it took."""
    began = time.monotonic()
    while True:
        try:
            if await rival.acquire():
                return time.monotonic() - began
        except StoreError as error:
            print(error)
        assert time.monotonic() - began < 60
        await asyncio.sleep(1)


async def followed_while_it_reads_nothing(url: str, store_url: str) -> None:
    """A writer that has asked for more than it takes keeps the lease locked, and is followed in time."""
    rival = open_store(url, exclusive=True)
    assert await rival.acquire()
    expire(store_url)
    with closing(psycopg.connect(url)) as frozen:
        large = b"BEGIN; SELECT token FROM leases FOR SHARE; SELECT repeat('x', 100000000)"
        frozen.pgconn.send_query(large)
        await asyncio.sleep(0.5)
        assert await take_over(rival) < PROMISED - LEASE
    await rival.close()


def record(*numbers: int) -> Record:
    """Of more than one of everything, so that it goes in batches."""
    made = told(*map(event, numbers))
    saved = tuple(Saved(Subject("prod", "shop", "web", f"uid-{n}"), Steady()) for n in numbers)
    return Record(saved, events=made.events, deliveries=made.deliveries)


def write(url: str, ends: Connection) -> None:
    """In a process of its own: what a writer does, and how each of it ended."""

    async def attempt(step: Callable[[], Any]) -> str:
        try:
            await step()
        except StoreError as error:
            return type(error).__name__
        return "done"

    async def all_of_it() -> None:
        store = open_store(url, exclusive=True)
        assert await store.acquire()
        await store.record(record(1, 2), NOW)
        (claimed, _) = await store.claim("hook", NOW, 2)
        end = Settlement(claimed.delivery.id, DeliveryState.DELIVERED, NOW)
        ends.send("ready")
        ends.recv()
        steps = (
            lambda: store.record(record(3, 4), NOW, ["hook"]),
            lambda: store.claim("hook", NOW, 1),
            lambda: store.settle(end),
            store.renew,
        )
        ends.send([await attempt(step) for step in steps])
        while await attempt(store.ping) != Deposed.__name__:
            pass
        ends.send(Deposed.__name__)

    asyncio.run(all_of_it())


class Writer:
    """One with a way of its own to a database of its own."""

    def __init__(self, server: Postgres, template: str, kinds: bytes) -> None:
        self._server = server
        self._kinds = kinds
        self._url = server.database(template)

    def count(self) -> int:
        """Messages of an undisturbed run."""
        return self._run(1_000_000)[0]

    def freeze_after(self, messages: int) -> float:
        """Gives how long its successor needed, beyond what was left of the lease."""
        late = self._run(messages)[1]
        print(f"frozen after {messages}: {late:.1f} s")
        return late

    def _run(self, messages: int) -> tuple[int, float]:
        path = urlsplit(self._url).path
        with turnstile(self._server.socket) as way:
            url = f"postgresql://postgres@127.0.0.1:{way.port}{path}?sslmode=disable"
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=write, args=(url, there), daemon=True)
            process.start()
            frozen = threading.Event()
            assert process.pid is not None

            def send(number: signal.Signals) -> None:
                assert process.pid is not None
                os.kill(process.pid, number)

            def freeze() -> None:
                send(signal.SIGSTOP)
                frozen.set()

            try:
                assert here.recv() == "ready"
                expire(self._url)
                way.stop_after(messages, freeze, self._kinds)
                here.send("go")
                while not frozen.wait(0.02):
                    if here.poll():
                        assert here.recv() == ["done"] * 4
                        return way.passed, 0
                late, before = asyncio.run(self._followed())
                send(signal.SIGCONT)
                way.resume()
                outcomes = here.recv()
                done = outcomes.count("done")
                assert "done" not in outcomes[done:], f"it went on: {outcomes}"
                assert here.recv() == Deposed.__name__
                assert contents(self._url) == before, f"it has written something: {outcomes}"
            finally:
                process.kill()
                process.join()
        return messages, late

    async def _followed(self) -> tuple[float, object]:
        ((until,),) = execute(self._url, "SELECT expires_at FROM leases")
        left = max(0.0, (until - datetime.now(UTC)).total_seconds())
        rival = open_store(self._url, exclusive=True)
        try:
            return await take_over(rival) - left, contents(self._url)
        finally:
            await rival.close()


def at_each(server: Postgres, template: str, kinds: bytes) -> None:
    count = Writer(server, template, kinds).count()
    assert count > 20
    with ThreadPoolExecutor(AT_ONCE) as threads:
        late = threads.map(lambda n: Writer(server, template, kinds).freeze_after(n), range(count))
        assert max(late) < PROMISED - LEASE


def test_at_each_statement(server: Postgres, url: str) -> None:
    """Of recording, claiming, settling and renewing."""
    at_each(server, url, STATEMENTS)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_at_each_message(server: Postgres, url: str) -> None:
    """Of the same: parsed and not executed, described, all said and idle in the transaction."""
    at_each(server, url, ANY)


async def test_who_reads_no_answer(url: str) -> None:
    """A session that waits for its client to take what it has asked for sees no timeout of its own."""
    await followed_while_it_reads_nothing(url, url)


async def test_a_session_that_is_not_ours_to_end(url: str) -> None:
    """What keeps the lease is said, and how to end it."""
    execute(url, "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN")
    execute(url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO plain")
    rival = open_store(url.replace("postgres:@", "plain:@"), exclusive=True)
    assert await rival.acquire()
    expire(url)
    with closing(psycopg.connect(url)) as other:
        other.execute("SELECT token FROM leases FOR SHARE")
        pid = other.info.backend_pid
        words = f"session {pid} of the role postgres .*, SELECT pg_terminate_backend.{pid}."
        with pytest.raises(StoreError, match=words):
            await rival.acquire()
    assert await take_over(rival) < 2
    await rival.close()


def test_the_process(server: Postgres, url: str, world: Outside, tmp_path: Path) -> None:
    """Frozen amid a transaction, it is followed within twenty seconds, and stands by once it goes on."""
    with turnstile(server.socket) as way, ExitStack() as stack:
        own = f"postgresql://postgres@127.0.0.1:{way.port}{urlsplit(url).path}?sslmode=disable"
        pair = []
        for name, store in (("first", own), ("second", url)):
            folder = tmp_path / name
            folder.mkdir()
            config = {**world.config(folder), "store": {"url": store}}
            pair.append(WatcherProcess(folder, config))
            stack.callback(pair[-1].stop)
            pair[-1].start_fresh()
        first, second = pair
        assert (role(first), role(second)) == ("writer", "standby")
        frozen = threading.Event()

        def freeze() -> None:
            first.pause()
            frozen.set()

        way.stop_after(3, freeze)
        world.set_ready("web", 0)
        assert frozen.wait(10)
        writes_within(second, PROMISED)
        eventually(lambda: world.told == ["deployment.degraded web"], within=20)
        first.resume()
        way.resume()
        eventually(lambda: role(first) == "standby", within=20)
        world.set_ready("web", 3)
        eventually(lambda: len(world.told) == 2)
        assert world.told == ["deployment.degraded web", "deployment.recovered web"]
        assert role(first) == "standby"
