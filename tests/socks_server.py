"""A SOCKS5 proxy on loopback (RFC 1928, 1929): what it was asked for, and the faults of real ones."""

import asyncio
import contextlib
from typing import Self

_NAME, _ADDRESS = 3, 1


class SocksServer:
    """Connects every name and address to `target`, a port of loopback; only it knows the names."""

    def __init__(self, target: int, login: str = "") -> None:
        self.target = target
        self.login = login
        """`user:password` to ask for; empty lets everybody in."""
        self.reply = 0
        """Anything but 0 refuses to connect."""
        self.mute = False
        """Take the connection and never say a word."""
        self.asked: list[tuple[str, int]] = []
        """Host and port of each connection, a name as it came."""
        self._tasks = set[asyncio.Task[None]]()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            if self.mute:
                await reader.read()
            elif await self._greets(reader, writer) and await self._is_asked(reader, writer):
                await self._pass_on(reader, writer)
        writer.close()

    async def _greets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _, count = await reader.readexactly(2)
        wanted = 2 if self.login else 0
        offered = wanted in await reader.readexactly(count)
        writer.write(bytes([5, wanted if offered else 0xFF]))
        if not offered or not self.login:
            return offered
        user = await reader.readexactly((await reader.readexactly(2))[1])
        password = await reader.readexactly((await reader.readexactly(1))[0])
        right = f"{user.decode()}:{password.decode()}" == self.login
        writer.write(bytes([1, not right]))
        return right

    async def _is_asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _, _, _, kind = await reader.readexactly(4)
        if kind == _NAME:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            assert kind == _ADDRESS
            host = ".".join(map(str, await reader.readexactly(4)))
        self.asked.append((host, int.from_bytes(await reader.readexactly(2))))
        writer.write(bytes([5, self.reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        return not self.reply

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inner_writer))
                group.create_task(_copy(inner_reader, writer))
        finally:
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
