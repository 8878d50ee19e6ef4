"""Opening the store at a URL: which kind of database, and whether its schema is the one we know."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from watcher.errors import StoreError
from watcher.stores import sqlite
from watcher.stores.schema import REVISION, leases
from watcher.stores.sql import SqlStore
from watcher.stores.transactions import Lease, store_error

# The driver of PostgreSQL and Alembic take long to import: whoever needs them does it.

_NEWEST: Final = f"{REVISION:04}"
_NEXT: Final = f"{REVISION + 1:04}"  # they sort as text


def open_store(url: str, *, exclusive: bool = False) -> SqlStore:
    """Open the store at a SQLAlchemy URL. Raises StoreError.

    With `exclusive` only one process writes: SQLite's file is ours until closed or until this
    process dies, in PostgreSQL whoever has the lease. SQLite's schema is brought up to date here.
    PostgreSQL need not even be there yet, and each connection to it refuses a schema it cannot use.
    """
    parsed = _parsed(url)
    if _is_postgresql(parsed):
        from watcher.stores import postgresql

        row = postgresql.RowLease() if exclusive else Lease()
        return SqlStore(postgresql.engine(parsed, _usable), row, cut=postgresql.cut)
    path = sqlite.find(parsed)
    with _explained(str(path)), ExitStack() as held:
        if exclusive:
            held.enter_context(sqlite.locked(path))
        with sqlite.alone(path):
            engine = sqlite.engine(path)
            if exclusive:
                sqlite.check(path, engine)
            before, _ = _bring_up_to_date(engine, str(path))
        lease = sqlite.FileLease(path) if exclusive else Lease()
        return SqlStore(engine, lease, release=held.pop_all().close, empty=before is None)


@contextmanager
def reading(url: str) -> Iterator[tuple[Connection, bool]]:
    """The record as it is at this instant, and whether a process has it in use. Raises StoreError."""
    parsed = _parsed(url)
    with ExitStack() as held:
        name, engine, alive = "the store", None, False
        if _is_postgresql(parsed):
            from watcher.stores import postgresql

            engine = postgresql.engine(parsed, _usable)
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        else:
            path = sqlite.find(parsed)
            name = str(path)
            if not path.exists():
                raise StoreError(f"there is no store at {path}")
            engine, alive = sqlite.engine(path), sqlite.in_use(path)
        held.enter_context(_explained(name))
        held.callback(engine.dispose)
        _usable(_revision(engine), name)
        db = held.enter_context(engine.connect())
        yield db, alive or db.scalar(select(leases.c.expires_at > func.now())) is True


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; say from which revision (None: there was none) to which."""
    parsed = _parsed(url)
    with ExitStack() as held:
        if _is_postgresql(parsed):
            from watcher.stores import postgresql

            name, engine = "the store", postgresql.engine(parsed)
        else:
            path = sqlite.find(parsed)
            name = str(path)
            held.enter_context(_explained(name))
            held.enter_context(sqlite.alone(path))
            engine = sqlite.engine(path)
        held.callback(engine.dispose)
        with _explained(name):
            return _bring_up_to_date(engine, name)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's URL cannot be read: sqlite:///file.db is one") from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        kind = parsed.get_backend_name()
        raise StoreError(f"no store for {kind!r} URLs; sqlite:///file.db is one, postgresql://…")
    return parsed


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or name}: {error.strerror}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{name}: {store_error(error)}") from error


def _bring_up_to_date(engine: Engine, name: str) -> tuple[str | None, str]:
    found = _revision(engine)
    if found is None or found < _NEWEST:
        from watcher.stores.migrations import upgrade

        with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as db:
            if db.dialect.name == "postgresql":
                from watcher.stores import postgresql

                postgresql.alone(db)
            upgrade(db)  # nothing, if another process was first
        return found, _NEWEST
    _usable(found, name)
    return found, found


def _revision(engine: Engine) -> str | None:
    with engine.begin() as db:
        if not inspect(db).has_table("alembic_version"):
            return None
        found: str | None = db.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def _usable(found: str | None, name: str = "the store") -> None:
    """Raise StoreError for a schema that this version cannot run on; one step ahead it can."""
    if found is None or found < _NEWEST:
        has = f"has schema {found}" if found else "has no schema yet"
        raise StoreError(f"{name} {has}, and {_NEWEST} is needed: run `watcher migrate`")
    if found > _NEXT:
        raise StoreError(
            f"{name} has schema {found}, and the newest known here is {_NEWEST}: "
            "run the version that wrote it"
        )
