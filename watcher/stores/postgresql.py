"""PostgreSQL: a server that may hang, go away and come back, and one writer by a row with a token."""

import contextlib
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import psycopg
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from watcher.errors import Deposed, StoreError
from watcher.stores.schema import leases
from watcher.stores.transactions import Lease

LEASE: Final = timedelta(seconds=12)
_CONNECT_SECONDS: Final = 5
_PREPARE_AFTER: Final = 5
"""Executions; planning anew each time takes a third longer."""
# What hangs is an error in seconds; and who was stopped in the middle of a transaction must not keep
# its locks, or nobody could take over. All of it ends with the transaction, since the session may be
# a pooler's, which lends it to others.
_BRIEF: Final = (
    "SET LOCAL statement_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '3s'"
)
_BEGIN: Final = {
    "read": f"BEGIN; {_BRIEF}",
    "write": f"BEGIN; {_BRIEF}",
    "snapshot": f"BEGIN ISOLATION LEVEL REPEATABLE READ; {_BRIEF}",
    "migrate": "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '30s'",
}
"""By what a transaction is for, which is the option `purpose` of an execution."""
# Of a client that stopped amid the messages of a batch the session is not idle, and runs nothing.
_BOUNDED: Final = f"{_BEGIN['write']}; SET LOCAL transaction_timeout = '8s'"
_TRANSACTION_TIMEOUT_SINCE: Final = 170000

_STUCK: Final = text("""
    SELECT DISTINCT a.pid, a.usename FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.relation = 'leases'::regclass AND a.datname = current_database() AND l.granted
    AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock') AND a.pid <> pg_backend_pid()
    AND coalesce(a.xact_start < clock_timestamp() - interval '3 s', true)
""")
"""Sessions that may hold the lease's row, and have for longer than a transaction of ours takes."""
_BY_STATEMENT: Final = (
    "what stands before PostgreSQL pools by statement, and each decision takes a transaction: set "
    "pool_mode = transaction in PgBouncer, or have store.url name the server itself"
)
_l = leases.c
_clock: Final = func.clock_timestamp()
_MINE: Final = _l.name == "writer"


def engine(url: URL, usable: Callable[[str | None], None] | None = None) -> Engine:
    """Connect when asked something; `usable` raises for a schema that must not be touched.

    A pooler may give each transaction another session, so nothing is kept in one: no setting, and
    behind a pooler no prepared statement either, of which another client's may have the same name.
    """
    made = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": _CONNECT_SECONDS,
            "autocommit": True,  # the driver begins nothing by itself: see _begin
            "prepare_threshold": None,
        },
        pool_size=1,
        use_native_hstore=False,  # it would be looked for in a transaction, before we look around
        hide_parameters=True,
    )

    def connected(connection: psycopg.Connection, _entry: ConnectionPoolEntry) -> None:
        try:
            found = _look_around(connection)
            if usable is not None:
                usable(found)
        except BaseException:
            connection.close()
            raise

    event.listen(made, "connect", connected)
    event.listen(made, "begin", _begin)
    return made


def _look_around(connection: psycopg.Connection) -> str | None:
    """See whether it leads to the server itself; return the schema's revision, None if there is none.

    Raises StoreError where no transaction is to be had.
    """
    try:
        connection.execute(_BEGIN["read"])
        session = connection.execute("SELECT pg_backend_pid()").fetchone()
        if session == (connection.info.backend_pid,):  # a pooler gives out an id of its own
            connection.prepare_threshold = _PREPARE_AFTER
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    except psycopg.errors.ProtocolViolation as error:
        raise StoreError(
            _BY_STATEMENT if "transaction block" in str(error) else str(error)
        ) from error
    connection.rollback()
    return str(row[0]) if row else None


def _begin(connection: Connection) -> None:
    """Begin, and bound the transaction, with one message."""
    purpose = connection.get_execution_options().get("purpose", "read")
    driver: Any = connection.connection.dbapi_connection
    newer = driver.info.server_version >= _TRANSACTION_TIMEOUT_SINCE
    connection.exec_driver_sql(_BOUNDED if newer and purpose == "write" else _BEGIN[purpose])


def cut(connection: psycopg.Connection | None) -> None:
    """End a connection whose server says nothing: what waits for it fails at once."""
    if connection is None:
        return
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)


class RowLease(Lease):
    """The row `writer`: whoever holds it writes, and each change of hands counts its token up.

    The database's clock decides. The token is checked in each transaction under a lock on the row,
    so that a takeover waits for what is being committed, and what comes after it is refused.
    """

    def __init__(self) -> None:
        self._holder = f"{socket.gethostname()}, pid {os.getpid()}"
        self._token = 0  # which nobody has ever had

    def acquire(self, db: Connection) -> bool:
        """Take it if nobody has it, or again if it was ours; with a new token in any case."""
        free = (_l.expires_at <= _clock) | (_l.token == self._token)
        seen = db.execute(select(_l.token, free).where(_MINE)).first()
        if seen is not None and not seen[1]:
            return False  # without a lock that its holder would have to wait for
        values = {"holder": self._holder, "expires_at": _clock + LEASE}
        take = insert(leases).values(name="writer", token=1, **values)
        again = values | {"token": _l.token + 1}
        take = take.on_conflict_do_update(index_elements=["name"], set_=again, where=free)
        try:
            with db.begin_nested():
                db.execute(text("SET LOCAL lock_timeout = '1s'"))
                token = db.scalar(take.returning(_l.token))
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
                raise
            _end_sessions(db)
            return False
        self._token = token or self._token
        return token is not None

    def check(self, db: Connection) -> None:
        """Raise Deposed unless it is still ours; nobody can take it before the transaction ends."""
        if db.scalar(select(_l.token).where(self._ours()).with_for_update(read=True)) is None:
            raise Deposed("another process has become the writer")

    def renew(self, db: Connection) -> None:
        later = update(leases).where(self._ours()).values(expires_at=_clock + LEASE)
        if not db.execute(later).rowcount:
            raise Deposed("another process has become the writer")

    def release(self, db: Connection) -> None:
        db.execute(update(leases).where(self._ours()).values(expires_at=_clock))

    def _ours(self) -> ColumnElement[bool]:
        return _MINE & (_l.token == self._token)


def _end_sessions(db: Connection) -> None:
    """End those that keep the row of a lease which has run out; raises StoreError if there are any.

    Their client is frozen or cut off, and the server notices neither while it waits for the rest of a
    batch or for its answer to be read. What the client wanted to write is rolled back.
    """
    for pid, user in (stuck := db.execute(_STUCK).all()):
        try:
            db.execute(select(func.pg_terminate_backend(pid)))
        except DBAPIError as error:
            raise StoreError(
                f"the lease has run out, and session {pid} of the role {user} keeps it locked: "
                f"end it as that role or as a superuser, SELECT pg_terminate_backend({pid})"
            ) from error
    if stuck:
        ended = ", ".join(str(pid) for pid, _ in stuck)
        raise StoreError(f"the lease has run out, and was kept locked by session {ended}: ended it")
