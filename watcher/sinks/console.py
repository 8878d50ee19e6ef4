"""The sink that needs nothing: one block of lines per event on standard output."""

import sys
from typing import TextIO

from watcher.core.message import visible
from watcher.core.model import Json
from watcher.errors import Outcome, SinkError
from watcher.pipes import write
from watcher.ports import Notification, Traits
from watcher.threads import BusyError, Threads


class Console:
    """Prints each event; `stream` defaults to what standard output is at that moment."""

    def __init__(self, name: str = "console", stream: TextIO | None = None) -> None:
        self.traits = Traits(name, concurrency=1)
        self._stream = stream
        self._thread = Threads(1)

    async def send(self, notification: Notification) -> Json | None:
        """Write it all. Raises SinkError when nobody reads any more."""
        message = notification.message
        lines = [visible(f"{message.symbol} {message.text}", 4000)]
        lines += [f"    {visible(line)}" for line in message.lines]
        text = "".join(f"{line}\n" for line in lines)
        try:
            await self._thread.run(lambda: write(text, self._stream or sys.stdout))
        except BusyError as error:
            raise SinkError("blocked", Outcome.RETRY, detail=str(error)) from None
        except (OSError, ValueError):  # a broken pipe, or a closed file
            raise SinkError("closed", Outcome.RETRY, detail="standard output is closed") from None
        return None
