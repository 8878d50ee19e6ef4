"""Opening the store at a URL: which kind of database, and whether its schema is the one we know."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
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
_MIGRATION: Final = 0x77617463  # the key of the lock that migrations wait for each other by
_NEXT: Final = f"{REVISION + 1:04}"  # they sort as text


def open_store(url: str, *, exclusive: bool = False) -> SqlStore:
    """Open the store at a SQLAlchemy URL. Raises StoreError.

    With `exclusive` only one process writes: SQLite's file is ours until closed or until this
    process dies, in PostgreSQL whoever has the lease. SQLite's schema is brought up to date here.
    PostgreSQL need not even be there yet, and each connection to it refuses a schema it cannot use.
    """
    where = _find(url)
    if isinstance(where, URL):
        from watcher.stores import postgresql

        row = postgresql.RowLease() if exclusive else Lease()
        return SqlStore(postgresql.engine(where, _usable), row, cut=postgresql.cut)
    with _explained(where) as name, ExitStack() as held:
        if exclusive:
            held.enter_context(sqlite.locked(where))
        with sqlite.alone(where):
            engine = sqlite.engine(where)
            held.callback(engine.dispose)
            if exclusive:
                sqlite.check(where, engine)
            before, _ = _bring_up_to_date(engine, name)
        lease = sqlite.FileLease(where) if exclusive else Lease()
        return SqlStore(engine, lease, let_go=held.pop_all().close, empty=before is None)


@contextmanager
def reading(url: str) -> Iterator[tuple[Connection, bool]]:
    """The record as it is at this instant, and whether a process has it in use. Raises StoreError."""
    where = _find(url)
    with _explained(where) as name, ExitStack() as held:
        if isinstance(where, URL):
            from watcher.stores import postgresql

            engine, alive = postgresql.engine(where, _usable), False
            engine = engine.execution_options(purpose="snapshot")
        elif where.exists():
            engine, alive = sqlite.engine(where), sqlite.in_use(where)
        else:
            raise StoreError(f"there is no store at {where}")
        held.callback(engine.dispose)
        _usable(_revision(engine), name)
        db = held.enter_context(engine.connect())
        yield db, alive or db.scalar(select(leases.c.expires_at > func.now())) is True


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the schema up to date; say from which revision (None: there was none) to which."""
    where = _find(url)
    with _explained(where) as name, ExitStack() as held:
        if isinstance(where, URL):
            from watcher.stores import postgresql

            engine = postgresql.engine(where)
        else:
            held.enter_context(sqlite.alone(where))
            engine = sqlite.engine(where)
        held.callback(engine.dispose)
        return _bring_up_to_date(engine, name)


def _find(url: str) -> Path | URL:
    """Where SQLite's file is, or the PostgreSQL server."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number
        raise StoreError("the store's URL cannot be read: sqlite:///file.db is one") from None
    if (kind := parsed.get_backend_name()) == "sqlite":
        return sqlite.find(parsed)
    if kind != "postgresql":
        raise StoreError(f"no store for {kind!r} URLs; sqlite:///file.db is one, postgresql://…")
    return parsed


@contextmanager
def _explained(where: Path | URL) -> Iterator[str]:
    """Give the store's name, and put it before what goes wrong."""
    name = str(where) if isinstance(where, Path) else "the store"
    try:
        yield name
    except OSError as error:
        raise StoreError(f"{error.filename or name}: {error.strerror}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{name}: {store_error(error)}") from error


def _bring_up_to_date(engine: Engine, name: str) -> tuple[str | None, str]:
    found = _revision(engine)
    others = inspect(engine).get_table_names() if found is None else []
    if others and engine.dialect.name == "sqlite":  # a server's database may be shared
        raise StoreError(f"{name} is another program's database: it has a table {others[0]}")
    if found is None or found < _NEWEST:
        from watcher.stores.migrations import upgrade

        with engine.execution_options(purpose="migrate").begin() as db:
            if db.dialect.name == "postgresql":  # until nobody else migrates
                db.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
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
