"""One transaction at a time, in one thread, by the one process that may write."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from watcher.errors import Deposed, StoreError, Unsure

_LONGEST: Final = 10.0
"""Seconds: what takes longer has failed, however it ends."""

T = TypeVar("T")


class Lease:
    """Who may write: this one lets everybody. Each method is part of a transaction."""

    def acquire(self, db: Connection) -> bool:
        """Take it, if it is to be had."""
        self.check(db)
        return True

    def check(self, db: Connection) -> None:
        """Raise Deposed unless it is ours, and stays so until the transaction ends."""

    def renew(self, db: Connection) -> None:
        """Keep it for longer; raises Deposed."""

    def release(self, db: Connection) -> None:
        """Give it back."""


@dataclass(eq=False)
class Transactions:
    """A whole transaction is one hop into a thread of its own.

    That is simpler and faster than an asynchronous driver, and no two transactions of a process wait
    for each other's locks. `cut` ends a connection of the driver that hangs; `let_go` comes last.
    """

    engine: Engine
    lease: Lease
    empty: bool = False
    """Whether there was nothing before it was opened."""
    cut: Callable[[Any], None] = lambda _: None
    let_go: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._writes = self.engine.execution_options(purpose="write")
        self._deposed = ""
        """Why nothing may be written before the store has been read anew."""
        self._connections: dict[Engine, Connection] = {}
        """Kept from one transaction to the next, until one fails: the pool takes its time."""
        self._in_use: object = None
        """The driver's connection of the transaction that runs."""
        self._thread = ThreadPoolExecutor(1, "store")

    async def acquire(self) -> bool:
        taken = await self._transact(self._writes, self.lease.acquire)
        self._deposed = "" if taken else "another process is the writer"
        return taken

    async def renew(self) -> None:
        await self._write(self.lease.renew)

    async def release(self) -> None:
        await self._write(self.lease.release)
        self._deposed = "the lease was given back"

    async def close(self) -> None:
        """Let go of the database, and of what is still waiting for it."""
        self.cut(self._in_use)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()
        self.let_go()

    def _disconnect(self) -> None:
        self._return_to_pool()
        self.engine.dispose()

    def _return_to_pool(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Checked in the very transaction: what was stopped in between writes nothing any more."""

        def checked(db: Connection) -> T:
            if self._deposed:
                raise Deposed(self._deposed)
            self.lease.check(db)
            return work(db)

        try:
            return await self._transact(self._writes, checked)
        except Deposed as error:
            self._deposed = str(error)
            raise

    async def _decide(self, work: Callable[[Connection], T]) -> T:
        """Write what must not be written twice: if it is unsure whether it was, nothing else is.

        To decide again could open a second incident beside the first.
        """
        try:
            return await self._write(work)
        except Unsure as error:
            self._deposed = f"it is not known whether the last decision was committed: {error}"
            raise Deposed(self._deposed) from error

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._transact(self.engine, work)

    async def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            db = self._connections.pop(engine, None) or engine.connect()
            try:
                self._in_use = db.connection.dbapi_connection
                result = work(db)
                _commit(db)
            except BaseException:
                db.close()
                self._return_to_pool()  # which knows what else went with the server
                raise
            self._connections[engine] = db
            return result

        try:
            async with asyncio.timeout(_LONGEST):
                return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)
        except TimeoutError:
            self.cut(self._in_use)
            raise Unsure(f"no answer within {_LONGEST:.0f} s") from None
        except SQLAlchemyError as error:
            raise store_error(error) from error
        except ValueError as error:  # of what the driver cannot write or read
            raise StoreError(str(error)) from error


def _commit(db: Connection) -> None:
    try:
        db.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unsure(str(store_error(error))) from error
        raise


def store_error(error: SQLAlchemyError) -> StoreError:
    """Say what the database said, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return StoreError(f"{type(cause).__name__}: {cause}".splitlines()[0])
