"""Whether this process is the writer: it records and sends only in a term, between gaining the lease and losing it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from watcher.errors import Deposed, StoreError
from watcher.ports import Clock, Store
from watcher.reporting import Reporting

_RENEW: Final = timedelta(seconds=3)
_ASK_SECONDS: Final = 1.0
_PARTING_SECONDS: Final = 3.0


class Leadership:
    """Asks for the store's lease, and keeps it for as long as a term lasts."""

    def __init__(self, store: Store, clock: Clock, reporting: Reporting) -> None:
        self._store = store
        self._clock = clock
        self._reporting = reporting
        self._over = asyncio.Event()

    def end(self) -> None:
        """End the present term: the store has refused this process as its writer."""
        self._over.set()

    async def run(self, term: Callable[[], Awaitable[None]]) -> None:
        """Live through one term after the other, on standby in between; never ends.

        A term is cancelled when it is over. When this is cancelled itself, the lease is kept until
        the term has finished what it has under way, and is then given back.
        """
        while True:
            await self._gain()
            self._over.clear()
            running = asyncio.ensure_future(term())
            running.add_done_callback(lambda _: self.end())
            self._reporting.leads(True)
            try:
                await self._keep()
            finally:
                await self._finish(running)

    async def _gain(self) -> None:
        while True:
            try:
                gained = await self._store.acquire()
            except StoreError as error:
                self._reporting.store_refused(error)
            else:
                self._reporting.store_works()
                if gained:
                    return
            await self._clock.sleep(_ASK_SECONDS)

    async def _keep(self) -> None:
        """Renew the lease until the end. While the store fails nobody else can have it either."""
        while not await self._clock.wait(self._over, self._clock.now() + _RENEW):
            try:
                await self._store.renew()
            except Deposed:
                return
            except StoreError as error:
                self._reporting.store_refused(error)

    async def _finish(self, running: asyncio.Future[None]) -> None:
        """Raises what has ended the term, unless that was the loss of the lease."""
        if not running.done():
            self._over.clear()
            running.cancel()
            await self._keep()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_PARTING_SECONDS):
                await self._store.release()
        self._reporting.leads(False)
        if isinstance(ended, ExceptionGroup):
            ended = ended.split(Deposed)[1]
        if isinstance(ended, Exception) and not isinstance(ended, Deposed):
            raise ended
