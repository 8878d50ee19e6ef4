"""SQLite: one file, which one process has to itself, and which must still be the one it opened."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry

from watcher.errors import StoreError
from watcher.stores.transactions import Lease

_PRAGMAS: Final = (
    "busy_timeout = 5000",
    "journal_mode = WAL",
    "synchronous = FULL",  # NORMAL may lose the last commits when the power goes
    "foreign_keys = ON",
)


def find(url: URL) -> Path:
    """Return where the file is or will be, wherever links lead. Raises StoreError."""
    if not url.database or url.database == ":memory:":
        raise StoreError("the store must be a file: what is told must outlive the process")
    path = Path(url.database)
    path = path.resolve() if path.is_symlink() else path
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the store {path.name}")
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file beside the database; the kernel lets go of it when we die."""
    lock = _beside(path, ".lock")
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


def in_use(path: Path) -> bool:
    """Whether a process has the lock; it is tried, for less than a moment."""
    try:
        with locked(path):
            return False
    except StoreError:
        return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lock the directory while we look: switching to WAL does not wait for another who does."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def engine(path: Path) -> Engine:
    """Open the file, made if need be; only its owner may read the names of all that runs."""
    path.touch(mode=0o600)
    # A connection that is made later finds this file or none: it makes no empty one in its place.
    file, query = f"file:{quote(str(path))}", {"mode": "rw", "uri": "true"}
    made = create_engine(URL.create("sqlite", database=file, query=query), hide_parameters=True)
    event.listen(made, "connect", _connected)
    event.listen(made, "begin", _begin)
    return made


class FileLease(Lease):
    """Whoever has the lock file has the database, as long as both are the files that were opened."""

    def __init__(self, path: Path) -> None:
        files = (path, _beside(path, "-wal"), _beside(path, ".lock"))
        self._files = {file: identity for file in files if (identity := _identity(file))}

    def check(self, _: Connection) -> None:
        """Raise StoreError when a file was deleted or replaced: what is written to it is lost."""
        for file, identity in self._files.items():
            if _identity(file) != identity:
                what = "was deleted or replaced while in use"
                raise StoreError(f"{file} {what}: put it back or restart")


def check(path: Path, engine: Engine) -> None:
    """Raise StoreError for a file that was damaged or lost while nobody had it open."""
    log = _beside(path, "-wal")
    if not log.exists() or not log.stat().st_size:
        return  # whoever had it has closed it
    if not path.stat().st_size:
        raise StoreError(
            f"{path} is gone and {log.name} is still there: put it back, or move that away too "
            "to start without a record"
        )
    with engine.begin() as db:
        found = db.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise StoreError(
            f"{path} is damaged ({str(found).splitlines()[-1]}): put a copy back, or move it away "
            "to start without a record"
        )


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connected(connection: SqliteConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: see _begin
    # A damaged byte costs a letter or a row, not the whole query.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("purpose") in ("write", "migrate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
