"""Requests to one API server: credentials, deadlines, and what an answer that is no 200 means."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
from aiohappyeyeballs import AddrInfoType
from msgspec import Struct

from watcher import __version__
from watcher.cluster.auth import Auth
from watcher.cluster.decode import Page, Status, decode_page, decode_status
from watcher.cluster.snapshot import UNDECODABLE
from watcher.core.markup import without_tags
from watcher.core.retry import parse_retry_after
from watcher.errors import (
    ClusterError,
    Expired,
    Forbidden,
    NotFound,
    Protocol,
    Throttled,
    Unauthorized,
    Unreachable,
)
from watcher.network import Resolver
from watcher.ports import Clock
from watcher.socks import Connector

_MOST_OF_A_REFUSAL: Final = 64 * 1024
_TEXT: Final = 256
"""How much of an answer that is no Status is quoted."""
_REFUSALS: Final = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 410: Expired, 429: Throttled,
}  # fmt: skip
_NEVER_THERE: Final = (
    aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientResponseError,
    aiohttp.InvalidURL,
)  # fmt: skip
_FAILURES: Final = {
    aiohttp.ConnectionTimeoutError: "no connection in time",
    aiohttp.ServerDisconnectedError: "the server hung up",
    aiohttp.ClientPayloadError: "the connection broke off",
    aiohttp.ClientResponseError: "the answer is no HTTP",
    aiohttp.InvalidURL: "the server's URL is not valid",
}


class Timings(Struct, frozen=True):
    """Every duration of list, watch and heartbeat in seconds, and every bound."""

    connect: float = 10  # TCP and TLS handshake
    headers: float = 30  # until response headers, and between two pieces of a list
    watch: tuple[float, float] = (240, 300)  # asked for at random: below load balancers' cut
    withheld: float = 25  # the most that is asked for where nothing comes before the end
    grace: float = 10  # until an end that was asked for has come
    prompt: float = 5  # headers that come later are held back
    longer_after: float = 3600  # a learned lifetime is raised after so long without a cut …
    longer_after_cap: float = 86400  # … twice as long each time that was too early
    list_gap: float = 60  # lists in place of a watch: at least so often …
    list_share: float = 0.05  # … and at most for this share of the time
    idle: float = 70  # longest silence of a stream: bookmarks come every 60 s
    pause: tuple[float, float] = (0.1, 0.3)  # between an end that is no failure and the next watch
    backoff: float = 0.8
    backoff_cap: float = 30
    retry_after_cap: float = 60
    too_short: float = 1  # a stream that ends this soon without an event has failed
    lived: float = 10  # a stream that lasted this long is no failure, however it was cut off
    quiet: float = 0.3  # silence that tells that all which had piled up is delivered …
    catch_up: float = 1  # … at most this long after the headers
    probe: float = 5
    look: float = 2  # for a last look; after one in vain none is tried for a while
    look_again: float = 15
    version: float = 600  # how long the server's version is remembered
    page: int = 500  # Deployments in one page of a list
    list_bytes: int = 512 << 20  # most of one page, unpacked
    line_bytes: int = 16 << 20  # most of one event: etcd holds 1.5 MB, other stores more


class Silent(Unreachable):
    """The connection stood and nothing came: ask again, without backing off (W15, W16)."""


class Withheld(Silent):
    """Not even headers came."""


class Lost(Unreachable, label="unreachable"):
    """The connection of a watch was there, and broke off."""


class Cut(Lost):
    """It broke off after it had carried a stream for a while: ask again, without backing off."""


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

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    @asynccontextmanager
    async def get(
        self, ask: Ask, params: Mapping[str, str], path: str = "", patience: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the answer once its headers say 200; a 401 gets one try with fresh credentials.

        `patience` is how many seconds they may take, if that is not the usual time.
        """
        with _told(ask):
            renewed = False
            while True:
                endpoint, credentials = await self._auth.current()
                encoding = "identity" if ask.verb == "watch" else "gzip"
                proxy = self._connector.through(endpoint.proxy)
                async with asyncio.timeout(patience or self._timings.headers):
                    response = await self._session.get(
                        endpoint.url + (path or ask.path), params=params, allow_redirects=False,
                        headers={"Accept-Encoding": encoding, **credentials}, proxy=proxy,
                        ssl=endpoint.tls or True, server_hostname=endpoint.server_name,
                    )  # fmt: skip
                if response.status != 401 or renewed or not await self._auth.renew(credentials):
                    break
                response.close()
                renewed = True
            try:
                if response.status != 200:
                    raise await self._refusal(ask, response)
                yield response
            finally:
                response.close()

    async def read(self, ask: Ask, params: Mapping[str, str], path: str = "") -> bytes:
        """Give the whole body of an answer."""
        body = bytearray()
        async with self.get(ask, params, path) as response:
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

    @cached_property
    def _connector(self) -> Connector:
        return Connector(
            Resolver(), keepalive_socket, use_dns_cache=False, limit=0, keepalive_timeout=15
        )

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        agent = f"deployment-watcher/{__version__}"
        session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timings.connect),
            headers={"User-Agent": agent, "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**20,
        )  # fmt: skip
        # It has no public switch, and would ask a server that resets connections twice each time.
        session._retry_connection = False
        return session

    async def _refusal(self, ask: Ask, response: aiohttp.ClientResponse) -> ClusterError:
        try:
            async with asyncio.timeout(self._timings.headers):
                body = await response.content.readexactly(_MOST_OF_A_REFUSAL)
        except asyncio.IncompleteReadError as whole:
            body = whole.partial
        except (aiohttp.ClientError, OSError):
            body = b""
        try:
            status = decode_status(msgspec.json.decode(body))
        except UNDECODABLE:
            said = without_tags(body.decode(errors="replace")).split()
            status = Status(message=" ".join(said))
        status = msgspec.structs.replace(status, code=response.status)
        asked = parse_retry_after(response.headers.get("Retry-After"), self._clock.wall())
        return error_for(ask, status, asked)


def error_for(ask: Ask, status: Status, asked: timedelta | None = None) -> ClusterError:
    """Say what a failure of the API means for us; 504 is a server that lags behind (W12)."""
    kind = _REFUSALS.get(status.code, Unreachable if status.code >= 500 else Protocol)
    if status.code == 504 and status.reason == "Timeout":
        kind = Expired
    why = " ".join(str(part) for part in (status.code, status.reason) if part)
    if status.message:
        why += f" ({status.message.partition(chr(10))[0][:_TEXT]})"
    if kind is Forbidden and not ask.scope:
        why += "; with rights in some namespaces only, name them in the configuration"
    if asked is None and status.details.retry_after_seconds is not None:
        asked = timedelta(seconds=status.details.retry_after_seconds)
    return kind(ask.failed(why or "an error without a code"), asked)


@contextmanager
def _told(ask: Ask) -> Iterator[None]:
    """Turn what goes wrong on the way into a ClusterError that names the request."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError)
        if late:
            kind: type[ClusterError] = Withheld if ask.verb == "watch" else Unreachable
            raise kind(ask.failed("no answer in time")) from None
        lost = ask.verb == "watch" and not isinstance(error, _NEVER_THERE)
        kind = Lost if lost else Unreachable
        raise kind(ask.failed(_reason(error))) from None


def _reason(error: Exception) -> str:
    """Say what went wrong, without the URLs that some of these quote: a proxy's has a password."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    for kind, words in _FAILURES.items():
        if isinstance(error, kind):
            return words
    via = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
    cause = getattr(error, "certificate_error", getattr(error, "os_error", error))
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
        words = os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
        return via + words.lower()
    return via + (str(cause).partition("\n")[0][:_TEXT] or type(cause).__name__)


def keepalive_socket(address: AddrInfoType) -> socket.socket:
    """Open a socket that notices within about 75 s that nobody is there any more (W16)."""
    opened = socket.socket(*address[:3])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return opened
