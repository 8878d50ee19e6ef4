"""The sink that needs nothing: one block of lines per event on standard output."""

import asyncio
import sys
from typing import TextIO

from watcher.core.message import visible
from watcher.core.model import Json
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits


class Console:
    """Prints each event; `stream` defaults to what standard output is at that moment."""

    def __init__(self, name: str = "console", stream: TextIO | None = None) -> None:
        self.traits = Traits(name, concurrency=1)
        self._stream = stream

    async def send(self, notification: Notification) -> Json | None:
        """Write and flush. Raises SinkError when nobody reads any more."""
        message = notification.message
        lines = [visible(f"{message.symbol} {message.text}", 4000)]
        lines += [f"    {visible(line)}" for line in message.lines]
        try:
            await asyncio.to_thread(_print, lines, self._stream or sys.stdout)
        except (OSError, ValueError):  # a broken pipe, or a closed file
            raise SinkError("closed", Outcome.RETRY, detail="standard output is closed") from None
        return None


def _print(lines: list[str], stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"  # a terminal may know no more than ASCII
    text = "".join(f"{line}\n" for line in lines)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
