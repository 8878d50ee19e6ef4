"""Requests to one API server: credentials, deadlines, and what an answer that is no 200 means."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
from aiohappyeyeballs import AddrInfoType
from msgspec import Struct

from watcher import __version__
from watcher.cluster.auth import Auth
from watcher.cluster.decode import Page, Status, decode_page, decode_status
from watcher.errors import (
    ClusterError,
    Expired,
    Forbidden,
    Protocol,
    Throttled,
    Unauthorized,
    Unreachable,
)
from watcher.ports import Clock

_MOST_OF_A_REFUSAL: Final = 64 * 1024
_TEXT: Final = 256
"""How much of an answer that is no Status is quoted."""


class Timings(Struct, frozen=True):
    """Every duration of list, watch and heartbeat, in seconds, and every bound."""

    connect: float = 10
    """TCP and TLS handshake."""
    headers: float = 30
    """Until response headers, and between two pieces of a list."""
    watch: tuple[float, float] = (240, 300)
    """What a watch asks for, drawn at random: below the cut of load balancers."""
    idle: float = 70
    """Longest silence of a stream whose server sends bookmarks, which come every 60 s."""
    idle_slack: float = 10
    """Beyond what the watch asked for, where no bookmark was ever seen."""
    pause: tuple[float, float] = (0.1, 1.0)
    """Between an orderly end and the next watch."""
    backoff: float = 0.8
    backoff_cap: float = 30
    retry_after_cap: float = 60
    too_short: float = 1
    """A stream that ends this soon without an event has failed."""
    healthy: float = 120
    """A stream that lasted this long forgives earlier failures."""
    quiet: float = 0.3
    """Silence that tells that all which had piled up is delivered …"""
    catch_up: float = 1
    """… at most this long after the headers."""
    probe: float = 5
    version: float = 600
    """How long the server's version is remembered."""
    page: int = 500
    """Deployments in one page of a list."""
    list_bytes: int = 512 << 20
    """Most of one page, unpacked."""
    line_bytes: int = 16 << 20
    """Most of one event; etcd holds 1.5 MB, but what is managed elsewhere may be longer."""


class Silent(Unreachable):
    """The connection stood and nothing came: ask again, without backing off (W15, W16)."""

    cause_label = "silent"


class Ask(Struct, frozen=True):
    """What is asked of which scope: an empty one is the whole cluster."""

    verb: str
    scope: str

    @property
    def path(self) -> str:
        """Below the server's URL."""
        inside = f"/namespaces/{quote(self.scope, safe='')}" if self.scope else ""
        return f"/apis/apps/v1{inside}/deployments"

    def failed(self, why: str) -> str:
        """Say what could not be done, where and why."""
        where = f"in namespace {self.scope}" if self.scope else "at cluster scope"
        return f"cannot {self.verb} deployments.apps {where}: {why}"


class Transport:
    """One session with one API server; every failure leaves as a ClusterError."""

    def __init__(self, auth: Auth, clock: Clock, timings: Timings) -> None:
        self._auth = auth
        self._clock = clock
        self._timings = timings
        self._open: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._open is not None:
            await self._open.close()
            self._open = None

    @asynccontextmanager
    async def get(
        self, ask: Ask, params: Mapping[str, str], *, path: str = "", gzip: bool = True
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the answer once its headers say 200; a 401 gets one try with fresh credentials."""
        response = await self._get(ask, params, path, gzip)
        try:
            with told(ask):
                yield response
        finally:
            response.close()

    async def read(self, ask: Ask, params: Mapping[str, str], *, path: str = "") -> bytes:
        """Give the whole body of an answer."""
        body = bytearray()
        async with self.get(ask, params, path=path) as response:
            while True:
                async with asyncio.timeout(self._timings.headers):
                    chunk = await response.content.readany()
                if not chunk:
                    return bytes(body)
                body += chunk
                if len(body) > self._timings.list_bytes:
                    raise Protocol(ask.failed("the answer does not end"))

    async def page(self, ask: Ask, params: Mapping[str, str], cluster: str) -> Page:
        """Give one page of a list, if it is a whole one."""
        body = await self.read(ask, params)
        try:
            return decode_page(body, cluster)
        except Protocol as error:
            raise Protocol(ask.failed(str(error))) from None

    async def _get(
        self, ask: Ask, params: Mapping[str, str], path: str, gzip: bool
    ) -> aiohttp.ClientResponse:
        for last in (False, True):
            endpoint, credentials = await self._auth.current()
            headers = {"Accept-Encoding": "gzip" if gzip else "identity", **credentials}
            with told(ask):
                async with asyncio.timeout(self._timings.headers):
                    response = await self._session().get(
                        endpoint.url + (path or ask.path),
                        params=params,
                        headers=headers,
                        ssl=endpoint.tls or True,
                        proxy=endpoint.proxy,
                        server_hostname=endpoint.server_name,
                        allow_redirects=False,
                    )
            if response.status == 200:
                return response
            error = await self._refusal(ask, response)
            if last or not isinstance(error, Unauthorized):
                raise error
            await self._auth.renew(credentials)
        raise AssertionError("unreachable")

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:
            connector = aiohttp.TCPConnector(
                use_dns_cache=False, socket_factory=keepalive_socket, limit=0, keepalive_timeout=15
            )
            self._open = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timings.connect),
                headers={
                    "User-Agent": f"deployment-watcher/{__version__}",
                    "Accept": "application/json",
                },
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=2**20,
            )
        return self._open

    async def _refusal(self, ask: Ask, response: aiohttp.ClientResponse) -> ClusterError:
        body = b""
        try:
            with told(ask):
                async with asyncio.timeout(self._timings.connect):
                    body = await response.content.readexactly(_MOST_OF_A_REFUSAL)
        except asyncio.IncompleteReadError as whole:
            body = whole.partial
        except ClusterError as error:
            body = str(error).encode()
        finally:
            response.close()
        status = _status(body, response.status)
        after = self._seconds(response.headers.get("Retry-After", ""))
        return error_for(ask, status, status.retry_after if after is None else after)

    def _seconds(self, retry_after: str) -> float | None:
        """Read a Retry-After header: a number of seconds, or a date."""
        if retry_after.isascii() and retry_after.isdigit():
            return float(retry_after[:6])
        try:
            wait = parsedate_to_datetime(retry_after) - self._clock.wall()
        except (ValueError, TypeError):
            return None
        return max(wait.total_seconds(), 0)


def error_for(ask: Ask, status: Status, retry_after: float | None) -> ClusterError:
    """Say what a failure of the API means for us; 504 is a server that lags behind (W12)."""
    kinds: dict[int, type[ClusterError]] = {
        401: Unauthorized,
        403: Forbidden,
        410: Expired,
        429: Throttled,
    }
    kind = kinds.get(status.code, Unreachable if status.code >= 500 else Protocol)
    if status.code == 504 and status.reason == "Timeout":
        kind = Expired
    why = " ".join(str(part) for part in (status.code, status.reason) if part)
    if status.message:
        why += f" ({status.message.partition(chr(10))[0][:_TEXT]})"
    if kind is Forbidden and not ask.scope:
        why += "; with rights in some namespaces only, name them in the configuration"
    after = None if retry_after is None else timedelta(seconds=retry_after)
    return kind(ask.failed(why or "an error without a code"), after)


@contextmanager
def told(ask: Ask) -> Iterator[None]:
    """Turn what goes wrong on the way into a ClusterError that names the request."""
    try:
        yield
    except aiohttp.ServerTimeoutError:
        raise Unreachable(ask.failed("no connection in time")) from None
    except TimeoutError:
        kind = Silent if ask.verb == "watch" else Unreachable
        raise kind(ask.failed("no answer in time")) from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(ask.failed(_reason(error))) from None


def _reason(error: Exception) -> str:
    """Say what went wrong, without the URLs that some of these quote: a proxy's has a password."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is no HTTP"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection broke off"
    for cause in ("certificate_error", "os_error"):
        error = getattr(error, cause, error)
    return str(error).partition("\n")[0][:_TEXT] or type(error).__name__


def _status(body: bytes, code: int) -> Status:
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:_TEXT].decode(errors="replace")
        return Status(code, message=" ".join(text.split()))
    return msgspec.structs.replace(decode_status(plain), code=code)


def keepalive_socket(address: AddrInfoType) -> socket.socket:
    """Open a socket that notices within about 75 s that nobody is there any more (W16)."""
    family, kind, protocol = address[:3]
    opened = socket.socket(family=family, type=kind, proto=protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return opened
