"""PostgreSQL's side of the store: one writer by a lease, and a server that hangs, dies and comes back."""

import asyncio
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from tests.deliveries import NOW, event, told
from tests.postgres import Postgres, execute, expire
from watcher.core.delivery import DeliveryState
from watcher.errors import Deposed, StoreError
from watcher.ports import Settlement
from watcher.stores.database import migrate, open_store
from watcher.stores.schema import REVISION, metadata
from watcher.stores.sql import SqlStore

NEWEST = f"{REVISION:04}"
MIGRATE = "import sys; from watcher.stores.database import migrate; print(migrate(sys.argv[1]))"


def test_two_migrations_at_once(postgres: Postgres) -> None:
    """Started together on an empty database, all succeed and there is one schema."""
    url = postgres.database()
    command = [sys.executable, "-c", MIGRATE, url]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [child.communicate(timeout=50)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert {answer[-7:] for answer in answers} == {f"'{NEWEST}')"}
    assert migrate(url) == (NEWEST, NEWEST)


def test_migrations_make_the_schema(url: str) -> None:
    """What the migrations build is what the code expects."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    engine.dispose()


async def test_an_older_schema_is_left_to_migrate(postgres: Postgres) -> None:
    """Nobody migrates a shared database by the way: it says what to do, and goes on once it is done."""
    url = postgres.database()
    store = open_store(url, exclusive=True)
    with pytest.raises(StoreError, match=r"no schema yet.*run `watcher migrate`"):
        await store.acquire()
    migrate(url)
    assert await store.acquire()
    await store.close()


@pytest.mark.parametrize("found", [f"{REVISION + 2:04}", "9999"])
async def test_a_newer_schema_is_refused(url: str, found: str) -> None:
    """A version that does not know the schema does not touch it, and says which it found."""
    execute(url, f"UPDATE alembic_version SET version_num = '{found}'")
    store = open_store(url)
    with pytest.raises(StoreError, match=rf"{found}.*{NEWEST}"):
        await store.history()
    with pytest.raises(StoreError, match=rf"{found}.*{NEWEST}"):
        migrate(url)
    await store.close()


async def test_one_writer(url: str, writer: SqlStore, rival: SqlStore) -> None:
    """While one process has the lease another cannot get it, and writes nothing."""
    await writer.record(told(event(1)), NOW)
    assert not await rival.acquire()
    for refused in (
        rival.record(told(event(2)), NOW),
        rival.claim("hook", NOW, 1),
        rival.reclaim("hook", NOW),
        rival.mark_seen("prod", NOW),
        rival.prune(NOW),
        rival.renew(),
    ):
        with pytest.raises(Deposed):
            await refused
    assert [row.event for row in await rival.history()] == [event(1)]
    await writer.renew()


async def test_the_lease_given_back_is_free(writer: SqlStore, rival: SqlStore) -> None:
    """Whoever ends in order need not be waited for."""
    await writer.release()
    assert await rival.acquire()
    assert not await writer.acquire()


async def test_who_was_stopped_writes_nothing_more(
    url: str, writer: SqlStore, rival: SqlStore
) -> None:
    """A process that comes back to itself after its lease was taken can record, claim and settle nothing."""
    await writer.record(told(event(1)), NOW)
    (claimed,) = await writer.claim("hook", NOW, 1)
    expire(url)
    await writer.record(told(event(2)), NOW)  # late, but nobody else has written
    assert await rival.acquire()
    end = Settlement(claimed.delivery.id, DeliveryState.DEAD, NOW)
    for refused in (
        writer.settle(end),
        writer.record(told(event(3)), NOW),
        writer.claim("hook", NOW, 1),
        writer.renew(),
        writer.release(),
    ):
        with pytest.raises(Deposed):
            await refused
    assert await rival.reclaim("hook", NOW) == 1
    states = {row.event.incident: row.delivery.state for row in await rival.history()}
    assert states == dict.fromkeys((event(1).incident, event(2).incident), DeliveryState.PENDING)


async def test_a_lease_that_ran_out_is_kept_if_nobody_took_it(url: str, writer: SqlStore) -> None:
    """A pause alone costs nothing: only another writer would make it stale."""
    expire(url)
    await writer.renew()
    await writer.record(told(event(1)), NOW)


async def test_a_commit_without_an_answer(postgres: Postgres, url: str, writer: SqlStore) -> None:
    """Whether it was committed is unknown, so nothing more is written before the store is read anew."""
    execute(
        url,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
    )
    with pytest.raises(Deposed, match="not known whether"):
        await writer.record(told(event(1)), NOW)
    execute(url, "DROP TRIGGER die ON events")
    with pytest.raises(Deposed):
        await writer.record(told(event(1)), NOW)
    assert await writer.acquire(), "nobody else has it, so there is nothing to wait for"
    await writer.record(told(event(1)), NOW)
    assert len(await writer.history()) == 1


async def test_errors_hold_no_password(postgres: Postgres) -> None:
    """What the driver says of a URL that does not work is said without its secrets."""
    store = open_store("postgresql://me:hunter22@127.0.0.1:1/x")
    with pytest.raises(StoreError) as refused:
        await store.ping()
    assert "refused" in str(refused.value)
    assert "hunter22" not in str(refused.value)
    await asyncio.wait_for(store.close(), 5)


async def test_nul_characters(writer: SqlStore) -> None:
    """What PostgreSQL's text cannot hold, and a hostile answer may, is no reason to stop."""
    await writer.record(told(event(1)), NOW)
    (claimed,) = await writer.claim("hook", NOW, 1)
    end = Settlement(
        claimed.delivery.id, DeliveryState.DEAD, NOW, reason="x\0", detail="a\0b\ud800"
    )
    await writer.settle(end)
    (row,) = await writer.history()
    assert row.delivery.state is DeliveryState.DEAD
