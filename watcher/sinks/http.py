"""The one sender of every sink: a fresh connection, one attempt, bounded in time and in bytes.

Rules and measurements: delivery reference §1.7 and §2.5. Nothing here retries, follows a redirect or
reuses a connection, so that what is known of an attempt is known exactly.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final, Literal

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from watcher.config.rules import check_url
from watcher.config.secrets import hide
from watcher.errors import Outcome, SinkError, WatcherError
from watcher.network import Resolver, environment_proxy
from watcher.ports import Clock
from watcher.sinks.answers import Answer, check, failed
from watcher.socks import Connector

Secret = Callable[[], str]
"""Gives a secret's present value; asked for each attempt, so that rotation needs no restart."""

BODY_CAP: Final = 65_536
"""Bytes of an answer that are read, unless its sender is asked for much."""
_HEAD_CAP: Final = 65_536
"""Bytes of a line of an answer's head; a policy for content may well be longer than the usual 8 KiB."""
_HEAD_ENDS: Final = re.compile(rb"\r?\n\r?\n")
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "deployment-watcher"}
_NO_RECEIVERS: Final = (
    "0.0.0.0/8 224.0.0.0/4 240.0.0.0/4 ::/128 ff00::/8 169.254.0.0/16 fe80::/10"
    # Metadata services that are not link-local: Alibaba's, Azure's, AWS's and Google's.
    " 100.100.100.200/32 168.63.129.16/32 fd00:ec2::254/128 fd20:ce::254/128"
)
_FORBIDDEN: Final = [ipaddress.ip_network(network) for network in _NO_RECEIVERS.split()]
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(eq=False)
class Sender:
    """Posts once. `total` and `connect` are seconds for a whole attempt and for its connection.

    `allow_http` permits http:// to other hosts than loopback and `*.svc`; `ca_file` replaces the
    system's certificate authorities; `client_cert`, with its key in the same file or in `client_key`,
    says who we are. These files are read again when they change.
    """

    clock: Clock
    _: KW_ONLY
    total: float = 15.0
    connect: float = 5.0
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    allow_http: bool = False
    resolver: AbstractResolver = field(default_factory=Resolver)
    _tls: tuple[list[int], ssl.SSLContext] | None = field(default=None, init=False)

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        cap: int = BODY_CAP,
    ) -> Answer:
        """Send `body`; any status is an answer, of which `cap` bytes are read.

        Raises SinkError, which says nothing of the URL.
        """
        try:
            check_url(url, self.allow_http)
        except ValueError as error:  # says what is wrong, not with what
            raise SinkError("bad_url", Outcome.PARK, detail=str(error)) from None
        attempt = _Attempt(cap)
        try:
            return await self._exchange(method, URL(url), body, headers, attempt)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its own text may name the whole URL.
            raise attempt.refusal or failed(error, attempt.sent) from None

    async def _exchange(
        self, method: str, url: URL, body: bytes, headers: Mapping[str, str], attempt: "_Attempt"
    ) -> Answer:
        connector = _Connector(self.resolver, attempt.socket, force_close=True, use_dns_cache=False)
        if proxy := environment_proxy(str(url)):
            hide(proxy)
            try:
                proxy = connector.through(proxy)
            except ValueError as error:
                raise SinkError("proxy_failed", Outcome.PARK, detail=str(error)) from None
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(attempt.began)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self.total, connect=self.connect),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a bomb stays as small as it was sent
                headers=_HEADERS,
                trace_configs=[trace],
                max_line_size=_HEAD_CAP,
                max_field_size=_HEAD_CAP,
            ) as session,
            session.request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=proxy,
                ssl=self._context() if url.scheme == "https" else True,
            ) as response,
        ):
            return Answer(
                response.status, response.headers, await _read(response.content, attempt.cap)
            )

    def _context(self) -> ssl.SSLContext:
        """Certificates are always verified; the context is kept until one of its files changes."""
        files = (self.ca_file, self.client_cert, self.client_key)
        try:
            changed = [file.stat().st_mtime_ns for file in files if file is not None]
            if self._tls is None or self._tls[0] != changed:
                context = ssl.create_default_context(cafile=self.ca_file)
                if self.client_cert is not None:  # the password: it never asks
                    context.load_cert_chain(self.client_cert, self.client_key, password="")
                self._tls = changed, context
        except OSError as error:  # an SSLError is one too
            why = f"{type(error).__name__} in ca_file, client_cert or client_key"
            raise SinkError("tls_unreadable", Outcome.PARK, detail=why) from None
        return self._tls[1]


@dataclass(eq=False)
class Ping:
    """One request to a dead-man monitor: it says that all is well by itself; the URL is a secret."""

    sender: Sender
    url: Secret
    method: Literal["GET", "POST"]

    async def send(self) -> None:
        """Ask once; any 2xx is success. Raises SinkError."""
        url = read_secret(self.url)
        answer = await self.sender.post(url, b"", {}, method=self.method)
        check(answer, self.sender.clock.wall(), [url])


class _Connector(Connector):
    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own signature
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None and connection.protocol is not None:
            connection.transport.set_protocol(_HeadFirst(connection.protocol))
        return connection


class _HeadFirst(asyncio.Protocol):
    """Hands the head of an answer on before what came with it.

    aiohttp drops the answers of a segment in which something cannot be parsed. A receiver that has
    said 2xx and adds bytes that belong to no answer (a body after 204, a length that counted
    characters) has been told nevertheless (RFC 9112 §6.3). No request follows on the connection,
    so they cannot become the answer to one.
    """

    def __init__(self, reader: asyncio.Protocol) -> None:
        self._reader = reader
        self._before = b""
        """The last bytes handed on: a head may end in the middle of a segment's first line break."""

    def data_received(self, data: bytes) -> None:
        seen, start = self._before + data, len(self._before)
        for end in (*(found.end() for found in _HEAD_ENDS.finditer(seen)), len(seen)):
            if start < end:
                self._reader.data_received(seen[start:end])
                start = end
        self._before = seen[-3:]

    def eof_received(self) -> bool | None:
        return self._reader.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.connection_lost(exc)

    def pause_writing(self) -> None:
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        self._reader.resume_writing()


@dataclass
class _Attempt:
    """What is known of one exchange."""

    cap: int
    """Bytes of the answer's body that are read."""
    sent: bool = False
    """The request is on its way: from now on it may have arrived."""
    refusal: SinkError | None = None

    async def began(self, *_: object) -> None:
        self.sent = True

    def socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Every connection begins here, so a name cannot turn into another address later."""
        family, kind, protocol, _, where = address
        if is_forbidden(str(where[0])):
            detail = f"{where[0]} is no address for a receiver"
            self.refusal = SinkError("forbidden_address", Outcome.PARK, detail=detail)
            raise PermissionError
        return socket.socket(family, kind, protocol)


def read_secret(secret: Secret) -> str:
    """Its present value; raises SinkError when it cannot be had or cannot be sent in a header."""
    try:
        value = secret().strip()
    except (OSError, WatcherError) as error:  # both name the place, not the value
        raise SinkError("secret_unreadable", Outcome.PARK, detail=str(error)) from None
    if not value or not value.isascii() or not value.isprintable():
        raise SinkError("secret_malformed", Outcome.PARK, detail="empty, or not one line of ASCII")
    return value


def read_secrets(named: Mapping[str, Secret]) -> Mapping[str, str]:
    """The present value of each; raises SinkError as `read_secret`."""
    return {name: read_secret(secret) for name, secret in named.items()}


def is_forbidden(address: str) -> bool:
    """Whether this is no place for a receiver: metadata services, link-local, multicast, 0/8.

    Private ranges and loopback are fine, since receivers inside the cluster are normal.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = translated or ip.ipv4_mapped or ip.sixtofour or ip
    return any(ip in network for network in _FORBIDDEN)


async def _read(content: aiohttp.StreamReader, cap: int) -> bytes:
    body = bytearray()
    while piece := await content.read(cap - len(body)):
        body += piece
    return bytes(body)
