"""The way to a PostgreSQL, which freezes its client after a given number of messages."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from tests.relay import Relay, relay

_LENGTH = 4
"""Bytes, which count themselves. Only a connection's first message has no byte for its type before."""


STATEMENTS = b"QE"
"""Queries, and what executes a prepared one: of that the client has not said yet that it is all."""
ANY = bytes(range(256))


class Turnstile(Relay):
    """Counts what the client says; the server is never told more than the messages let through.

    For the server that is what a client looks like that was stopped between two of them, although
    the client may have had the next ones on their way.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.passed = 0
        """Messages of the kinds since it was told to stop."""
        self._kinds = b""
        self._stops_after: int | None = None
        self._stop: Callable[[], None] = lambda: None

    def stop_after(self, count: int, stop: Callable[[], None], kinds: bytes = STATEMENTS) -> None:
        """Bring nothing across after so many more; `stop` is called in the relay's thread then."""

        def arm() -> None:
            self.passed, self._stops_after, self._stop, self._kinds = 0, count, stop, kinds
            self._look()

        self._call(arm)

    def resume(self) -> None:
        def disarm() -> None:
            self._stops_after = None
            self._flowing.set()

        self._call(disarm)

    def _look(self) -> None:
        if self.passed == self._stops_after:
            self._stop()
            self._flowing.clear()

    async def _pass_on_said(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kind = 0  # bytes
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(kind + _LENGTH)
                length = int.from_bytes(head[kind:])
                message = head + await reader.readexactly(length - _LENGTH)
                await self._flowing.wait()
                writer.write(message)
                await writer.drain()
                if kind and head[0] in self._kinds:
                    self.passed += 1
                    self._look()
                kind = 1
        raise ConnectionResetError


@contextlib.contextmanager
def turnstile(target: str) -> Iterator[Turnstile]:
    """Listen on loopback until the block ends."""
    made = Turnstile(target)
    with relay(target, made):
        yield made
