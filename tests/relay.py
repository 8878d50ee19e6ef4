"""The network between a client and its server, which can hang and break."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator


class Relay:
    """Passes bytes on to a Unix socket; its methods may be called from any thread."""

    def __init__(self, target: str) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def pause(self) -> None:
        """Keep every connection, and lose nothing, but bring nothing across."""
        self._call(self._flowing.clear)

    def resume(self) -> None:
        self._call(self._flowing.set)

    def cut(self) -> None:
        """Reset what is connected; whoever connects again is let through."""
        self._call(self._abort)

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _call(self, what: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(what)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self._target)
        ends = {writer, inner_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on_said(reader, inner_writer))
                group.create_task(self._pass_on(inner_reader, writer))
        except* OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on_said(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """What the client says."""
        await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@contextlib.contextmanager
def relay(target: str, made: Relay | None = None) -> Iterator[Relay]:
    """Listen on loopback until the block ends."""
    made = made or Relay(target)
    loop = made._loop
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    starting = asyncio.start_server(made._accept, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    made.port = server.sockets[0].getsockname()[1]

    async def end() -> None:
        made._flowing.set()
        server.close()
        made._abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
