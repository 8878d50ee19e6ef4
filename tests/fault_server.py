"""An HTTP server that misbehaves on purpose, below the level at which a framework would help."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from msgspec import Struct

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Request(Struct, frozen=True):
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    """Counts connections."""
    method: str = ""


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """A complete answer; keyword `retry_after` becomes the header Retry-After."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *lines]
        writer.write("\r\n".join((*head, "", "")).encode() + body)
        await writer.drain()

    return behave


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The request was read; the connection ends without an answer."""
    writer.transport.abort()


async def says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def drips(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte every now and then, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.02)


async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"ok" * 32_768)
        await writer.drain()


async def talks_nonsense(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n")
    writer.close()


class FaultServer:
    """Listens on loopback; each connection uses up one of `script`, then `usual` is the answer."""

    def __init__(self, usual: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.usual = usual
        self.script: list[Behaviour] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.clients: list[str] = []
        """Whom their certificates name, one a connection."""
        self._tls = tls
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if peer := writer.get_extra_info("peercert"):
            names = dict(pair for part in peer["subject"] for pair in part)
            self.clients.append(names.get("commonName", ""))
        self._open.add(writer)
        try:
            self.requests.append(await self._read(reader, self.connections))
            await (self.script.pop(0) if self.script else self.usual)(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {
            k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = first.split()
        return Request(path, headers, body, connection, method)
