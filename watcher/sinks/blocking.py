"""Work that blocks, where it holds up neither another sink nor the end of the process."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from watcher.errors import Outcome, SinkError

T = TypeVar("T")


class OwnThread:
    """One call at a time, in a daemon thread: a pool's threads are waited for at the end."""

    def __init__(self) -> None:
        self._busy = False

    async def run(self, work: Callable[[], T]) -> T:
        """Return its result; raises SinkError while an earlier call that was given up still blocks."""
        if self._busy:
            raise SinkError("blocked", Outcome.RETRY, detail="an earlier attempt has not ended")
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()

        def call() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                done.set_exception(error)
            finally:
                self._busy = False

        self._busy = True
        threading.Thread(target=call, daemon=True).start()
        return await asyncio.wrap_future(done)
