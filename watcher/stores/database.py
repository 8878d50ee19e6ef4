"""Opening the database: where it is, whose it is, and whether its schema is the one we know."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from watcher.errors import StoreError
from watcher.stores.schema import REVISION
from watcher.stores.sql import SqlStore, store_error

_PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL may lose the last commits when the power goes
    "foreign_keys = ON",
)


def open_store(url: str, *, exclusive: bool = False) -> SqlStore:
    """Open the store at a SQLAlchemy URL, its schema brought up to date.

    With `exclusive` it is ours alone until closed or until this process dies: only one may send.
    Reading the history beside that needs no exclusive use. Raises StoreError.
    """
    path = _path(url)
    with _explained(path), ExitStack() as held:
        if exclusive:
            held.enter_context(_locked(path))
        engine = _engine(path)
        _bring_up_to_date(engine, path)
        return SqlStore(engine, held.pop_all().close)


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; say from which revision (None: there was none) to which."""
    path = _path(url)
    with _explained(path):
        engine = _engine(path)
        try:
            return _bring_up_to_date(engine, path)
        finally:
            engine.dispose()


def _path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's URL cannot be read: sqlite:///file.db is one") from None
    kind = parsed.get_backend_name()
    if kind != "sqlite":
        raise StoreError(f"no store for {kind!r} URLs; sqlite:///file.db is one")
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("the store must be a file: what is told must outlive the process")
    path = Path(parsed.database)
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the store {path.name}")
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{path}: {store_error(error)}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside the database; the kernel lets go of it when we die."""
    lock = path.with_name(f"{path.name}.lock")
    lock.touch(mode=0o600)
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read(20).strip() or "unknown"
            busy = f"{path} is in use by another watcher, pid {holder} ({lock})"
            raise StoreError(busy) from None
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def _engine(path: Path) -> Engine:
    """Only its owner may read the file: it holds the names of all that runs."""
    path.touch(mode=0o600)
    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True)
    event.listen(engine, "connect", _connected)
    event.listen(engine, "begin", _begin)
    return engine


def _connected(connection: SqliteConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: see _begin
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _bring_up_to_date(engine: Engine, path: Path) -> tuple[str | None, str]:
    """One process at a time; another kind of database would take an advisory lock for it."""
    newest, next_after = f"{REVISION:04}", f"{REVISION + 1:04}"  # they sort as text
    with _alone(path.parent):
        with engine.begin() as db:
            there = inspect(db).has_table("alembic_version")
            found = db.scalar(text("SELECT version_num FROM alembic_version")) if there else None
        if found is None or found < newest:
            # Imported here, since most starts have nothing to migrate.
            from watcher.stores.migrations import upgrade

            with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as db:
                upgrade(db)
            return found, newest
    if found > next_after:  # a schema one step ahead is one we can still run on
        raise StoreError(
            f"{path} has schema {found}, and the newest known here is {newest}: "
            "run the version that wrote it"
        )
    return found, found


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Lock the directory while we look: switching to WAL does not wait for another who does."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
