"""What a server's answer, or the lack of one, means for a delivery: reference delivery.md §2.5."""

import errno
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from watcher.core.message import visible
from watcher.core.retry import parse_retry_after
from watcher.errors import Outcome, SinkError

_QUOTED: Final = 512
"""Characters of an answer that are quoted."""
_URL: Final = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s/?#\"'<>]*)[^\s\"'<>]*", re.IGNORECASE)
_EXPIRED: Final = 10
"""X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL: renewing it takes no change here, so it is tried again."""
_REASONS: Final = {401: "unauthorized", 403: "forbidden", 410: "gone", 429: "rate_limited"}
_PARKING: Final = frozenset({401, 403, 404, 405, 407, 410})
_BAD_PAYLOAD: Final = frozenset({400, 413, 415, 422})


class Answer(Struct, frozen=True):
    """What a server said; its body only as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check(answer: Answer, now: datetime, secrets: Iterable[str] = ()) -> None:
    """Raise SinkError for any status but 2xx, classed as delivery reference §2.5 has it."""
    status = answer.status
    if 200 <= status < 300:
        return
    raise SinkError(
        "redirect" if 300 <= status < 400 else _REASONS.get(status, f"http_{status}"),
        _outcome(status),
        detail=describe(answer, secrets),
        retry_after=parse_retry_after(answer.headers.get("Retry-After"), now),
        # A gateway that gave up says nothing of what the server behind it did.
        ambiguous=status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT),
    )


def _outcome(status: int) -> Outcome:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome.THROTTLED
    if 300 <= status < 400:
        return Outcome.RETRY_SLOWLY
    if status in _PARKING:
        return Outcome.PARK
    return Outcome.BAD_PAYLOAD if status in _BAD_PAYLOAD else Outcome.RETRY


def describe(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """`HTTP 503: upstream is down`, with at most 512 characters of the answer and no secret."""
    said = answer.body.decode(errors="replace")
    said = visible(redact(said, secrets), _QUOTED)
    return f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide every known secret, of a secret URL its parts too, and of any URL all but the host."""
    known = {part for secret in secrets for part in (secret, *_telling_parts(secret))}
    for secret in sorted(known - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL.sub(r"\1\2/***", text)


def _telling_parts(secret: str) -> list[str]:
    if "://" not in secret:
        return []
    url = urlsplit(secret)
    parts = (url.path, url.query, url.username or "", url.password or "")
    return [part for part in parts if len(part) > 3]  # hiding "/" would only make nonsense


def failed(error: Exception, sent: bool) -> SinkError:
    """What an exception of aiohttp means; only what cannot hold the URL is quoted.

    Once `sent` is true the request may have arrived.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _untrusted(error.certificate_error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        refused = error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        outcome = Outcome.PARK if refused else Outcome.RETRY
        return SinkError("proxy_failed", outcome, detail=f"the proxy answered {error.status}")
    if type(error) is aiohttp.ClientConnectorError and error.errno:
        refused = error.errno == errno.ECONNREFUSED
        reason = "connection_refused" if refused else "connection_failed"
        return SinkError(reason, Outcome.RETRY, detail=os.strerror(error.errno).lower())
    for kind, reason, outcome, detail in _FAILURES:
        if isinstance(error, kind):
            return SinkError(reason, outcome, detail=detail, ambiguous=sent)
    return SinkError("not_http", Outcome.RETRY, detail="no HTTP answer", ambiguous=sent)


_FAILURES: Final[tuple[tuple[type[Exception], str, Outcome, str], ...]] = (
    (aiohttp.ClientSSLError, "tls_failed", Outcome.PARK, "no TLS connection"),
    (
        aiohttp.ClientConnectorDNSError,
        "name_not_resolved",
        Outcome.RETRY,
        "the host name does not resolve",
    ),
    (
        aiohttp.ClientProxyConnectionError,
        "proxy_failed",
        Outcome.RETRY,
        "no connection to the proxy",
    ),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", Outcome.RETRY, "no connection in time"),
    (TimeoutError, "timeout", Outcome.RETRY, "no complete answer in time"),
    (aiohttp.ClientConnectorError, "connection_failed", Outcome.RETRY, "no connection"),
    (aiohttp.ClientConnectionError, "connection_lost", Outcome.RETRY, "connection lost"),
    (aiohttp.ClientPayloadError, "connection_lost", Outcome.RETRY, "connection lost"),
    (aiohttp.InvalidURL, "bad_url", Outcome.PARK, "not a URL"),
)


def _untrusted(error: Exception) -> SinkError:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return SinkError("tls_untrusted", Outcome.PARK, detail="certificate not accepted")
    if error.verify_code == _EXPIRED:
        return SinkError("tls_expired", Outcome.RETRY, detail="the certificate has expired")
    return SinkError("tls_untrusted", Outcome.PARK, detail=error.verify_message)
