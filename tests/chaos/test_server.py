"""A PostgreSQL that hangs, dies and comes back, under one open store: errors in seconds, and then all is well."""

import time
from contextlib import closing

import psycopg
import pytest

from tests.deliveries import NOW, event, told
from tests.postgres import Postgres
from watcher.errors import StoreError
from watcher.stores.sql import SqlStore


async def test_a_server_that_is_killed_and_comes_back(postgres: Postgres, writer: SqlStore) -> None:
    """Errors meanwhile, at once; afterwards all that was committed is there and the writer goes on.

    No connection is kept that would fail once more, however much later it is used.
    """
    await writer.record(told(event(1)), NOW)
    assert await writer.next_due("hook") == NOW
    postgres.kill()
    try:
        for _ in range(2):
            with pytest.raises(StoreError):
                await writer.ping()
    finally:
        postgres.start()
    await writer.renew()
    assert await writer.next_due("hook") == NOW
    (claimed,) = await writer.claim("hook", NOW, 1)
    assert claimed.event == event(1)


async def test_a_server_that_hangs(postgres: Postgres, writer: SqlStore) -> None:
    """It is an error within seconds, not a wait for ever; and once it answers all is well."""
    await writer.record(told(event(1)), NOW)
    postgres.pause()
    began = time.monotonic()
    try:
        with pytest.raises(StoreError, match="no answer within 10 s"):
            await writer.ping()
        assert time.monotonic() - began < 12
    finally:
        postgres.resume()
    await writer.ping()
    assert len(await writer.claim("hook", NOW, 1)) == 1


async def test_a_lock_that_is_never_released(url: str, writer: SqlStore) -> None:
    """Somebody's forgotten transaction is an error within seconds too."""
    with closing(psycopg.connect(url)) as other:
        other.execute("LOCK TABLE deliveries")
        with pytest.raises(StoreError, match="timeout"):
            await writer.claim("hook", NOW, 1)
    assert await writer.claim("hook", NOW, 1) == []
