"""Work that blocks, where it holds up neither anybody else's nor the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class BusyError(OSError):
    """All threads are blocked by work of before, which may have been given up since."""


class Threads:
    """At most so many daemon threads: the event loop's are shared, and awaited at the end."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    async def run(self, work: Callable[[], T]) -> T:
        """Return its result; raises BusyError, and whatever the work raises."""
        if not self._free.acquire(blocking=False):
            raise BusyError("earlier ones have not ended")
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()

        def call() -> None:
            try:
                tell = partial(done.set_result, work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                tell = partial(done.set_exception, error)
            self._free.release()  # before whoever waits goes on, and asks again
            tell()

        threading.Thread(target=call, daemon=True).start()
        return await asyncio.wrap_future(done)
