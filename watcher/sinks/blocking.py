"""A sink's work that blocks: one attempt at a time."""

from collections.abc import Callable
from typing import TypeVar

from watcher.errors import Outcome, SinkError
from watcher.threads import BusyError, Threads

T = TypeVar("T")


class OwnThread:
    """One call at a time."""

    def __init__(self) -> None:
        self._thread = Threads(1)

    async def run(self, work: Callable[[], T]) -> T:
        """Return its result; raises SinkError while an earlier call that was given up still blocks."""
        try:
            return await self._thread.run(work)
        except BusyError:
            raise SinkError(
                "blocked", Outcome.RETRY, detail="an earlier attempt has not ended"
            ) from None
