"""What all connections out of the process share: the environment's proxy, and how names are looked up."""

import ipaddress
import os
import socket
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from watcher.threads import Threads

_AT_ONCE: Final = 32


class Resolver(AbstractResolver):
    """Looks names up on threads of its own: a name server that hangs holds up no other host."""

    def __init__(self) -> None:
        self._threads = Threads(_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Give the host's addresses; raises OSError."""
        try:
            found = await self._threads.run(
                lambda: socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                )
            )
        except UnicodeError:
            raise OSError(socket.EAI_NONAME, "no name that a host can have") from None
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(at), port=int(to), family=kind, proto=proto, flags=numeric
            )
            for kind, _, proto, _, (at, to, *_) in found
        ]

    async def close(self) -> None:
        """There is nothing to give back."""


def environment_proxy(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Give the proxy of the environment unless NO_PROXY has the host, its domain or its range.

    The ranges are why this is not left to a library (W32). Loopback is always reached directly.
    """
    parts = urlsplit(url)
    host, name = parts.hostname or "", f"{parts.scheme}_proxy"
    if not (proxy := environ.get(name) or environ.get(name.upper())):
        return None
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    bypassed = urllib.request.proxy_bypass_environment(host, {"no": no_proxy})  # type: ignore[attr-defined]
    if bypassed or host == "localhost":
        return None
    for entry in f"127.0.0.0/8,::1/128,{no_proxy}".split(","):
        with suppress(ValueError):  # a name, or nonsense
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return None
    return proxy
