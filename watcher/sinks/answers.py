"""What a server's answer, or the lack of one, means for a delivery: reference delivery.md §2.5."""

import errno
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from watcher.config.secrets import redact as hidden
from watcher.config.secrets import telling_parts
from watcher.core.markup import without_tags
from watcher.core.message import visible
from watcher.core.retry import parse_retry_after
from watcher.errors import Outcome, SinkError

_QUOTED: Final = 512
"""Characters of an answer that are quoted."""
_URL: Final = re.compile(r"(https?://)(?:[^\s/@]*@)?([^\s/?#\"'<>]*)[^\s\"'<>]*", re.IGNORECASE)
_REDIRECTS: Final = range(300, 400)
_REASONS: Final = {401: "unauthorized", 403: "forbidden", 410: "gone", 429: "rate_limited"}
_OUTCOMES: Final = {
    429: Outcome.THROTTLED,
    **dict.fromkeys(_REDIRECTS, Outcome.RETRY_SLOWLY),
    **dict.fromkeys((401, 403, 404, 405, 407, 410), Outcome.PARK),
    **dict.fromkeys((400, 413, 415, 422), Outcome.BAD_PAYLOAD),
}
_AMBIGUOUS: Final = (502, 504)
"""A gateway that gave up says nothing of what the server behind it did."""
_CERTIFICATE_EXPIRED: Final = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED: renewing it takes no change here, so it is tried again."""
_FAILURES: Final[Mapping[type[Exception], tuple[str, Outcome]]] = {  # the first that fits
    aiohttp.ClientSSLError: ("tls_failed", Outcome.PARK),
    aiohttp.ClientConnectorDNSError: ("name_not_resolved", Outcome.UNREACHED),
    aiohttp.ClientProxyConnectionError: ("proxy_failed", Outcome.UNREACHED),
    aiohttp.ConnectionTimeoutError: ("connect_timeout", Outcome.UNREACHED),
    TimeoutError: ("timeout", Outcome.RETRY),
    aiohttp.ClientConnectorError: ("connection_failed", Outcome.UNREACHED),
    aiohttp.ClientConnectionError: ("connection_lost", Outcome.RETRY),
    aiohttp.ClientPayloadError: ("connection_lost", Outcome.RETRY),
    ValueError: ("bad_url", Outcome.PARK),
    Exception: ("not_http", Outcome.RETRY),
}


class Answer(Struct, frozen=True):
    """What a server said; its body only as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check(answer: Answer, now: datetime, secrets: Iterable[str] = ()) -> None:
    """Raise SinkError for any status but 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return
    raise SinkError(
        "redirect" if status in _REDIRECTS else _REASONS.get(status, f"http_{status}"),
        _OUTCOMES.get(status, Outcome.RETRY),
        detail=_quoted(answer, secrets),
        retry_after=parse_retry_after(answer.headers.get("Retry-After"), now),
        ambiguous=status in _AMBIGUOUS,
    )


def unreadable(answer: Answer, secret: str) -> SinkError:
    """A success that is not in the words of whom it should be from: a captive proxy answers so."""
    return SinkError("bad_answer", Outcome.RETRY, detail=_quoted(answer, [secret]), ambiguous=True)


def failed(error: Exception, sent: bool) -> SinkError:
    """What an exception of aiohttp means; only what cannot hold the URL is quoted.

    Once `sent` is true the request may have arrived.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = getattr(error.certificate_error, "verify_message", "certificate not accepted")
        if getattr(error.certificate_error, "verify_code", 0) == _CERTIFICATE_EXPIRED:
            return SinkError("tls_expired", Outcome.RETRY, detail=said)
        return SinkError("tls_untrusted", Outcome.PARK, detail=said)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        outcome = Outcome.PARK if error.status == 407 else Outcome.RETRY
        return SinkError("proxy_failed", outcome, detail=f"the proxy answered {error.status}")
    if type(error) is aiohttp.ClientConnectorError and error.errno:
        refused = error.errno == errno.ECONNREFUSED
        reason = "connection_refused" if refused else "connection_failed"
        return SinkError(reason, Outcome.UNREACHED, detail=os.strerror(error.errno).lower())
    reason, outcome = next(_FAILURES[kind] for kind in _FAILURES if isinstance(error, kind))
    return SinkError(reason, outcome, ambiguous=sent)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide every known secret, of a secret URL its parts too, and of any URL all but the host."""
    known = {part for secret in secrets for part in (secret, *_telling_parts(secret))}
    for secret in sorted(known - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL.sub(r"\1\2/***", hidden(text))


def _telling_parts(secret: str) -> list[str]:
    if "://" not in secret:
        return []
    url = urlsplit(secret)
    parts = (url.path, url.query, url.username or "", url.password or "", *telling_parts(url))
    whole = [part for part in parts if len(part) > 3]  # hiding "/" would only make nonsense
    return [*whole, *(part.replace("/", "\\/") for part in whole if "/" in part)]


def _quoted(answer: Answer, secrets: Iterable[str]) -> str:
    """`HTTP 503: upstream is down`."""
    known = tuple(secrets)
    said = without_tags(redact(answer.body.decode(errors="replace"), known))
    said = visible(redact(said, known), _QUOTED)  # a tag may have stood within a secret
    return f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"
