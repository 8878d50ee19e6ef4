"""Opening the database: where it is, whose it is, and whether its schema is the one we know."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from watcher.errors import StoreError
from watcher.ports import Clock
from watcher.stores.schema import REVISION
from watcher.stores.sql import SqlStore, store_error

_PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL may lose the last commits when the power goes
    "foreign_keys = ON",
)


def open_store(url: str, clock: Clock, *, exclusive: bool = False) -> SqlStore:
    """Open the store at a SQLAlchemy URL, its schema brought up to date.

    With `exclusive` it is ours alone until closed or until this process dies: only one may send.
    Reading the history beside that needs no exclusive use. Raises StoreError.
    """
    path = _path(url)
    release = _lock(path) if exclusive else _nothing
    try:
        engine = _engine(path)
        _bring_up_to_date(engine, path)
    except StoreError:
        release()
        raise
    return SqlStore(engine, clock, release)


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; say from which revision (None: there was none) to which."""
    path = _path(url)
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
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(
            f"no store for {parsed.get_backend_name()!r} URLs; sqlite:///file.db is one"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("the store must be a file: what is told must outlive the process")
    path = Path(parsed.database)
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the store {path.name}")
    return path


def _nothing() -> None:
    """There is no lock to let go of."""


def _lock(path: Path) -> Callable[[], None]:
    """Take the lock file beside the database; the kernel lets go of it when we die."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{lock}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreError(f"{path} is in use by another watcher, pid {holder} ({lock})") from error
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return lambda: os.close(handle)


def _engine(path: Path) -> Engine:
    """Only its owner may read the file: it holds the names of all that runs."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
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
    try:
        with _alone(path):
            with engine.begin() as db:
                found = _revision(db)
            if found is None or _number(found) < REVISION:
                # Imported here, since most starts have nothing to migrate.
                from watcher.stores.migrations import upgrade

                with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as db:
                    upgrade(db)
                return found, f"{REVISION:04}"
    except SQLAlchemyError as error:
        raise StoreError(f"{path}: {store_error(error)}") from error
    if _number(found) > REVISION + 1:
        raise StoreError(
            f"{path} has schema {found}, and the newest known here is {REVISION:04}: "
            "run the version that wrote it"
        )
    return found, found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lock the directory while we look: switching to WAL does not wait for another who does."""
    try:
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"{path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _revision(db: Connection) -> str | None:
    if not inspect(db).has_table("alembic_version"):
        return None
    revision: str | None = db.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def _number(revision: str) -> int:
    """Revisions count up, so that a schema one step ahead, which we can still run on, is known."""
    return int(revision) if revision.isdecimal() else REVISION + 2
