"""PgBouncer: by transaction it works, in versions that keep prepared statements and in others."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.chaos.ledger import problems
from tests.chaos.test_frozen import PROMISED, followed_while_it_reads_nothing
from tests.chaos.test_replicas import role, writes_within
from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import ROOT, WatcherProcess
from tests.deliveries import NOW, event, told
from tests.outside import Outside
from tests.poolers.conftest import Pooled
from tests.postgres import Postgres, execute, expire
from watcher.core.delivery import DeliveryState
from watcher.errors import StoreError
from watcher.ports import Settlement
from watcher.stores.database import migrate, open_store
from watcher.stores.sql import SqlStore

TIMEOUTS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
)
OFTEN = 12
"""More than the driver asks before it would prepare a statement."""
BY_STATEMENT = r"pools by statement.* set pool_mode = transaction in PgBouncer"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Of the server itself."""
    return postgres.database()


async def tell(store: SqlStore, numbers: Sequence[int]) -> None:
    for number in numbers:
        await store.record(told(event(number)), NOW)
        (claimed,) = await store.claim("hook", NOW, 1)
        await store.settle(Settlement(claimed.delivery.id, DeliveryState.DELIVERED, NOW))


async def ask(store: SqlStore) -> None:
    """What a standby asks, in an order of its own."""
    for _ in range(OFTEN):
        await store.sink_state("hook")
        assert not await store.acquire()
        await store.queue()
        await store.load("prod")
        await store.next_due("hook")


async def test_two_share_a_session(pooled: Pooled, url: str) -> None:
    """Neither ever executes what the other has prepared, and each can follow the other."""
    way = pooled(size=1).url(url)
    assert migrate(way)[0] is None
    assert migrate(way)[0] is not None
    first, second = (open_store(way, exclusive=True) for _ in range(2))
    assert await first.acquire()
    await asyncio.gather(tell(first, range(OFTEN)), ask(second))
    await first.release()
    assert await second.acquire()
    await asyncio.gather(tell(second, range(OFTEN, 2 * OFTEN)), ask(first))
    states = [row.delivery.state for row in await second.history()]
    assert states == [DeliveryState.DELIVERED] * 2 * OFTEN
    for store in (first, second):
        await store.close()


async def test_no_setting_reaches_another_client(pooled: Pooled, url: str) -> None:
    """The one session of the pool is as the server has made it, whatever it was used for."""
    pooler = pooled(size=1)
    own = {name: execute(url, f"SHOW {name}")[0][0] for name in TIMEOUTS}
    way = pooler.url(url)
    migrate(way)
    store = open_store(way, exclusive=True)
    assert await store.acquire()
    await tell(store, range(OFTEN))
    expire(url)
    assert await store.acquire(), "again, with a limit to how long it waits"
    assert {name: pooler.show(url, name) for name in TIMEOUTS} == own
    with closing(psycopg.connect(pooler.url(url), autocommit=True)) as other:
        prepared = other.execute("SELECT count(*) FROM pg_prepared_statements WHERE from_sql")
        assert prepared.fetchone() == (0,)
    await store.close()


async def test_a_pooler_that_starts_anew(pooled: Pooled, url: str) -> None:
    """All its sessions are others then: an error at once, and it goes on."""
    pooler = pooled()
    way = pooler.url(url)
    migrate(way)
    store = open_store(way, exclusive=True)
    assert await store.acquire()
    await tell(store, range(OFTEN))
    pooler.stop()
    with pytest.raises(StoreError):
        await store.renew()
    pooler.start()
    await store.renew()
    await tell(store, range(OFTEN, 2 * OFTEN))
    await store.close()


async def test_a_frozen_writer(pooled: Pooled, url: str) -> None:
    """Its session is the pooler's, which keeps it for as long as the client lives; it is ended."""
    way = pooled().url(url)
    migrate(way)
    await followed_while_it_reads_nothing(way, url)


async def test_by_statement(pooled: Pooled, url: str) -> None:
    """Refused in words by whatever meets it first, and nothing is done by halves."""
    way = pooled("statement").url(url)
    with pytest.raises(StoreError, match=BY_STATEMENT):
        migrate(way)
    migrate(url)
    store = open_store(way, exclusive=True)
    with pytest.raises(StoreError, match=BY_STATEMENT):
        await store.acquire()
    await store.close()


def test_commands_by_statement(pooled: Pooled, url: str, world: Outside, tmp_path: Path) -> None:
    """`migrate` ends with the reason, and `run` says it for as long as it waits for a better day."""
    way = pooled("statement").url(url)
    watcher = WatcherProcess(tmp_path, {**world.config(tmp_path), "store": {"url": way}})
    command = [sys.executable, "-m", "watcher", "migrate", "--config", str(watcher.write_config())]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert re.search(BY_STATEMENT, " ".join(done.stderr.split()))

    def reasons() -> str:
        return str(watcher.get("/readyz")[1].get("reasons"))

    try:
        watcher.start()
        eventually(lambda: re.search(BY_STATEMENT, reasons()), instead=reasons)
    finally:
        watcher.stop()


def has_told(world: Outside, messages: int) -> bool:
    return len(world.told) == messages


async def test_the_process(pooled: Pooled, url: str, world: Outside, tmp_path: Path) -> None:
    """Two replicas on a pool of two sessions: one tells, one takes over, and the record adds up."""
    way = pooled().url(url)
    migrate(way)
    pair = []
    try:
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            pair.append(WatcherProcess(folder, {**world.config(folder), "store": {"url": way}}))
            pair[-1].start_fresh()
        first, second = pair
        assert (role(first), role(second)) == ("writer", "standby")
        for number in range(3):
            world.set_ready("web", 0 if number % 2 == 0 else 3)
            eventually(partial(has_told, world, number + 1), within=20)
        first.kill()
        writes_within(second, PROMISED)
        world.set_ready("web", 3)
        eventually(partial(has_told, world, 4), within=20)
        assert second.terminate() == 0
        for watcher in pair:
            assert watcher.lines("store.failing") == []
    finally:
        for watcher in pair:
            watcher.stop()
    assert await problems(url, world.taken, kills=1) == []
