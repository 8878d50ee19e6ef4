"""PostgreSQL: a server that may hang, go away and come back, and one writer by a row with a token."""

import contextlib
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import psycopg
from sqlalchemy import ColumnElement, Connection, Engine, create_engine, event, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry

from watcher.errors import Deposed
from watcher.stores.schema import leases
from watcher.stores.transactions import Lease

LEASE: Final = timedelta(seconds=12)
_CONNECT_SECONDS: Final = 5
_SESSION: Final = (
    # What hangs is an error in seconds; and who was stopped in the middle of a transaction must not
    # keep its locks, or nobody could take over.
    "SET statement_timeout = '5s'; SET idle_in_transaction_session_timeout = '3s'"
)
_l = leases.c
_clock: Final = func.clock_timestamp()
_MINE: Final = _l.name == "writer"


def engine(url: URL, usable: Callable[[str | None], None] | None = None) -> Engine:
    """Connect when asked something; `usable` raises for a schema that must not be touched.

    Without `usable`, statements may take as long as migrations take.
    """
    made = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": _CONNECT_SECONDS},
        pool_size=1,
        hide_parameters=True,
    )

    def connected(connection: psycopg.Connection, _entry: ConnectionPoolEntry) -> None:
        try:
            if usable is not None:
                usable(_begin_session(connection))
        except BaseException:
            connection.close()
            raise

    event.listen(made, "connect", connected)
    return made


def _begin_session(connection: psycopg.Connection) -> str | None:
    """Return the schema's revision; None when there is none."""
    connection.execute(_SESSION)
    connection.commit()
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    connection.rollback()
    return str(row[0]) if row else None


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
        token = db.scalar(take.returning(_l.token))
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
