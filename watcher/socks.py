"""Connections through a SOCKS5 proxy (RFC 1928), which aiohttp by itself cannot make."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohappyeyeballs
import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from msgspec import Struct
from yarl import URL

_SOCKS: Final = ("socks5", "socks5h")
_PORT: Final = 1080
_LONGEST: Final = 255
"""Bytes of a user or password (RFC 1929)."""
_NEXT_ADDRESS_AFTER: Final = 0.25


def check_proxy(proxy: str) -> URL:
    """Return the proxy if connections can go through it; raises ValueError, which quotes nothing of it."""
    try:
        url = URL(proxy)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https", *_SOCKS) or not url.host:
        raise ValueError("the proxy must be http://, https:// or socks5://, with its host")
    if url.scheme in _SOCKS:
        for text in (url.user or "", url.password or ""):
            if not text.isascii() or len(text) > _LONGEST:
                raise ValueError(
                    "user and password of a SOCKS5 proxy must be ASCII, at most 255 long"
                )
    return url


class Connector(aiohttp.TCPConnector):
    """Connects through the SOCKS5 proxy that `through` was last given, else as aiohttp does.

    The proxy looks the names up, whether it is called socks5 or socks5h, as with Go's net/http and
    so with kubectl: they may be known only there.
    """

    def __init__(
        self,
        resolver: AbstractResolver,
        socket_factory: Callable[[aiohttp.AddrInfoType], socket.socket],
        **options: Any,  # noqa: ANN401 - whatever aiohttp takes
    ) -> None:
        super().__init__(resolver=resolver, socket_factory=socket_factory, **options)
        self._dial = _Dial(resolver, socket_factory)
        self._proxy: URL | None = None

    def through(self, proxy: str | None) -> str | None:
        """Take this way from now on, and give the proxy if it is one that aiohttp is to ask.

        Raises ValueError for one that nobody can ask.
        """
        url = check_proxy(proxy) if proxy else None
        self._proxy = url if url is not None and url.scheme in _SOCKS else None
        return proxy if self._proxy is None else None

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> ResponseHandler:
        """Do what each kind of connector does for itself."""
        if self._proxy is None:
            return await super()._create_connection(req, traces, timeout)
        async with asyncio.timeout(timeout.sock_connect):
            try:
                opened = await self._ask(self._proxy, req.url.raw_host or "", req.url.port or 0)
            except OSError as error:
                raise aiohttp.ClientProxyConnectionError(req.connection_key, error) from error
            return await _speak(opened, req)

    async def _ask(self, proxy: URL, host: str, port: int) -> socket.socket:
        """Have the proxy connect to the host; raises OSError, also for what the proxy refuses."""
        from python_socks import ProxyError, ProxyType  # late: seldom needed
        from python_socks.async_.asyncio import Proxy

        kind, to = ProxyType.SOCKS5, (proxy.host or "", proxy.port or _PORT)
        dial: Any = self._dial
        way = Proxy(kind, *to, proxy.user, proxy.password, rdns=True, forward=dial)
        try:
            return await way.connect(host, port)
        except ProxyError as error:
            raise OSError(str(error).lower()) from error
        except ValueError:
            raise OSError("it cannot be asked for a host of this name") from None


class _Dial(Struct, frozen=True):
    """Reaches the proxy itself, in the place of a proxy before it."""

    resolver: AbstractResolver
    socket_factory: Callable[[aiohttp.AddrInfoType], socket.socket]

    async def connect(self, dest_host: str, dest_port: int, **_: object) -> socket.socket:
        found = await self.resolver.resolve(dest_host, dest_port, socket.AF_UNSPEC)
        where: list[aiohttp.AddrInfoType] = [
            (each["family"], socket.SOCK_STREAM, each["proto"], "", (each["host"], each["port"]))
            for each in found
        ]
        return await aiohappyeyeballs.start_connection(
            where,
            happy_eyeballs_delay=_NEXT_ADDRESS_AFTER,
            interleave=1,
            socket_factory=self.socket_factory,
        )


async def _speak(opened: socket.socket, req: aiohttp.ClientRequest) -> ResponseHandler:
    """Begin TLS if the request is for https, verified as it asks for, and then HTTP."""
    loop = asyncio.get_running_loop()
    tls, name = None, None
    if req.is_ssl():
        tls = req.ssl if isinstance(req.ssl, ssl.SSLContext) else ssl.create_default_context()
        name = req.server_hostname or (req.url.raw_host or "").rstrip(".")
    try:
        _, protocol = await loop.create_connection(
            lambda: ResponseHandler(loop), sock=opened, ssl=tls, server_hostname=name
        )
    except ssl.SSLCertVerificationError as error:
        raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
    except ssl.SSLError as error:
        raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
    except OSError as error:
        raise aiohttp.ClientConnectorError(req.connection_key, error) from error
    return protocol
