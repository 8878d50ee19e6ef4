"""What all connections out of the process share: the environment's proxy, and how names are looked up."""

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from watcher.threads import Threads

_AT_ONCE: Final = 32
_PORTS: Final = {"http": 80, "https": 443}
_WITH_PORT: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:\[\]]*)")
_MAPPED_BITS: Final = 96
"""Of an IPv6 address that stands for an IPv4 one: how many come before it."""
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


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
    """Give the URL of the environment's proxy for this one; None where it is reached directly.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY mean what they mean to Go's net/http, and so to kubectl:
    https://pkg.go.dev/golang.org/x/net/http/httpproxy. Loopback is always reached directly.
    """
    scheme = urlsplit(url).scheme
    proxy = _variable(environ, f"{scheme}_proxy")
    if not proxy or _is_exempt(url, _variable(environ, "no_proxy")):
        return None
    parts = urlsplit(proxy)
    return proxy if parts.scheme and parts.netloc else f"http://{proxy}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _is_exempt(url: str, no_proxy: str) -> bool:
    """Whether one of the entries is for the host of this URL, or the host is this machine."""
    parts = urlsplit(url)
    host = _as_ascii(parts.hostname or "")
    port = str(parts.port or _PORTS.get(parts.scheme) or "")
    address = _address(host.partition("%")[0])
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_is_for(entry, host, port, address) for entry in entries if entry)


def _is_for(entry: str, host: str, port: str, address: _Address | None) -> bool:
    """Whether `*`, a range, an address or a domain, these two perhaps with a port, has the host.

    `.domain` and `*.domain` have what is below it, `domain` also itself.
    """
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        return address is not None and address in network
    name, of_port = _without_port(entry)
    if of_port not in ("", port):
        return False
    named = _address(name)
    if named is not None or address is not None:
        return named == address
    name = name[1:] if name.startswith("*.") else name
    if name.startswith("."):
        return host.endswith("." + _as_ascii(name[1:]))
    return bool(name) and f".{host}".endswith("." + _as_ascii(name))


def _without_port(entry: str) -> tuple[str, str]:
    """Divide `name:port` and `[address]:port`; an IPv6 address without brackets has no port."""
    found = _WITH_PORT.fullmatch(entry)
    return (found[1] or found[2] or "", found[3]) if found else (entry, "")


def _address(text: str) -> _Address | None:
    """Read an address; an IPv4 one may be written as IPv6."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Read a range as `address/bits`; what is not one is a name, or nonsense."""
    address, slash, bits = text.partition("/")
    if not (slash and bits.isdecimal()) or "%" in address:
        return None
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    inside = found.prefixlen - _MAPPED_BITS
    return (
        ipaddress.IPv4Network((mapped, inside), strict=False) if mapped and inside >= 0 else found
    )


def _as_ascii(host: str) -> str:
    """Write a name as the resolver will ask for it (IDNA)."""
    if host.isascii():
        return host
    try:
        return URL.build(scheme="http", host=host).raw_host or host
    except ValueError:
        return host
