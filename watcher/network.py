"""What all connections out of the process share: the environment's proxy, and how names are looked up."""

import asyncio
import ipaddress
import os
import socket
import threading
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

_AT_ONCE: Final = 4


class Resolver(AbstractResolver):
    """Looks names up on at most four threads of its own, which the end of the process does not await.

    The event loop's are for everybody: a name server that hangs would hold up all other hosts too.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the host's addresses; raises OSError. Giving up frees no thread before its answer."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any] | OSError] = loop.create_future()

        def told(found: list[Any] | OSError) -> None:
            self._free.release()
            if not answer.done():
                answer.set_result(found)

        def look_up() -> None:
            found: list[Any] | OSError
            try:
                found = socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
            except OSError as error:
                found = error
            except UnicodeError:
                found = OSError(socket.EAI_NONAME, "no name that a host can have")
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(told, found)

        threading.Thread(target=look_up, name="look up", daemon=True).start()
        if isinstance(found := await answer, OSError):
            raise found
        return [
            ResolveResult(
                hostname=host,
                host=where[0],
                port=where[1],
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, _, protocol, _, where in found
        ]

    async def close(self) -> None:
        """There is nothing to give back."""


def environment_proxy(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Give the proxy of the environment unless NO_PROXY has the host, its domain or its range.

    The ranges are why this is not left to a library (W32). Loopback is always reached directly.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    settings = {key.lower(): value for key, value in environ.items()}
    proxy, no_proxy = settings.get(f"{parts.scheme}_proxy"), settings.get("no_proxy", "")
    bypassed = urllib.request.proxy_bypass_environment(host, {"no": no_proxy})  # type: ignore[attr-defined]
    if bypassed or host == "localhost":
        return None
    for entry in f"127.0.0.0/8,::1/128,{no_proxy}".split(","):
        with suppress(ValueError):  # a name, or nonsense
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return None
    return proxy or None
