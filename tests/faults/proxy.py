"""A TCP proxy that does to connections what networks do: forget, cut, slow down, lead elsewhere."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Self

from tests.elsewhere import entered, loop_elsewhere

_PIECE = 65536
_HELD, _HELD_FOR = 16384, 60
"""nginx's ssl_buffer_size in bytes, and its proxy_read_timeout in seconds."""
_LAST_CHUNK = b"0\r\n\r\n"


class _Pipe:
    """One connection through the proxy: both directions."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.flows = asyncio.Event()
        self.flows.set()


class Proxy:
    """Listens on loopback and passes bytes on to `target`."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.target = target
        """The port for new connections, always on 127.0.0.1."""
        self.port = 0
        self._host = host
        self.delay = 0.0
        """Seconds that every piece is held back, in either direction."""
        self.connections = 0
        self.bad_one_in = 0
        """Reset each such connection at once; 0 none."""
        self.cut_idle: float | None = None
        """Cut a connection off whose far side has said nothing for so many seconds, as haproxy does."""
        self.hold_back = False
        """Pass nothing on of an answer that is not over before there are 16 KiB of it, and cut it off
        after 60 s without more, as nginx does with TLS and its defaults."""
        self._dropping = False
        self._pipes: set[_Pipe] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self.reset()

    async def listen(self) -> None:
        """Take connections; again on the same port after `refuse`."""
        self._listener = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuse new connections; the present ones go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def freeze(self) -> None:
        """The present connections stay open and carry nothing any more; new ones work."""
        for pipe in self._pipes:
            pipe.flows.clear()

    def drop(self) -> None:
        """Nothing gets through in either direction, and no new connection gets an answer."""
        self._dropping = True
        self.freeze()

    def heal(self) -> None:
        """Connections carry what is sent from now on, and what the peers still had to send."""
        self._dropping = False
        for pipe in self._pipes:
            pipe.flows.set()

    def reset(self) -> None:
        """Cut every connection off."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            if self.bad_one_in and self.connections % self.bad_one_in == 0:
                raise ConnectionResetError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(far_writer)
        pipe = _Pipe((writer, far_writer))
        if self._dropping:
            pipe.flows.clear()
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(pipe, reader, far_writer))
                group.create_task(self._answer(pipe, far_reader, writer))
        finally:
            self._pipes.discard(pipe)
            self._open -= {writer, far_writer}

    async def _pump(
        self, pipe: _Pipe, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        """Pass on until one side ends; that end passes too, once the connection flows."""
        with contextlib.suppress(OSError):
            while piece := await source.read(_PIECE):
                await pipe.flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)  # noqa: TID251 - a slow network, in the loop's time
                sink.write(piece)
                await sink.drain()
        await pipe.flows.wait()
        for writer in pipe.writers:
            writer.close()

    async def _answer(
        self, pipe: _Pipe, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        """Pass answers on as a proxy in the middle does that has timeouts and buffers of its own."""
        if self.cut_idle is None and not self.hold_back:
            await self._pump(pipe, source, sink)
            return
        held, quiet = b"", _HELD_FOR if self.cut_idle is None else self.cut_idle
        try:
            async with asyncio.timeout(None) as silence:
                while True:
                    silence.reschedule(asyncio.get_running_loop().time() + quiet)
                    piece = await source.read(_PIECE)
                    held += piece
                    over = not piece or held.endswith(_LAST_CHUNK) or b"Content-Length:" in held
                    if over or not self.hold_back or len(held) >= _HELD:
                        sink.write(held)
                        held = b""
                    if not piece:
                        break
        except TimeoutError:
            sink.write(held)
        for writer in pipe.writers:
            writer.close()


@contextlib.contextmanager
def proxied(target: int) -> Iterator[tuple[Proxy, asyncio.AbstractEventLoop]]:
    """One on a thread of its own, so that a test may block; its methods go through the loop."""
    with loop_elsewhere("proxy") as loop, entered(Proxy(target), loop) as proxy:
        yield proxy, loop
