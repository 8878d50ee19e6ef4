"""What a value must look like; each rule says in words what is wrong, without the value in it."""

import base64
import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})")
_API: Final = re.compile(r"/api(/v\d+(/alerts)?)?/*$")
_KEY_BYTES: Final = range(24, 65)
_MAKE: Final = "`openssl rand -base64 32` makes one"
_STORE: Final = re.compile(r"(sqlite:///|postgresql://)\S+")


def _rule(pattern: str, wrong: str) -> Callable[[str], str]:
    """Make a check that gives back a text of this form, and raises ValueError with these words."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(wrong)
        return text

    return check


check_channel: Final = _rule(
    r"[CGD][A-Z0-9]{7,20}|#[^\s#@<>|,:]{1,80}", "must be a channel id such as C0123456789, or #name"
)
check_header: Final = _rule(
    r"(?i)(?!(?:webhook|content)-|(?:host|content)$)[!#$%&'*+.^_`|~0-9a-z-]+",
    "is no name of a header that can be set (content-*, webhook-*, host cannot)",
)
check_mention: Final = _rule(
    r"[UWS][A-Z0-9]{5,20}|here|channel|everyone",
    "must be the id of a user (U…) or a group (S…), or here or channel",
)


def check_exclusion(pattern: str) -> str:
    """Return the pattern if it leaves any namespace to be watched; raises ValueError."""
    if not pattern.strip("*"):
        raise ValueError("would leave no namespace to be watched")
    return pattern


def check_url(url: str, allow_http: bool) -> str:
    """Return the URL if a message may be sent to it; raises ValueError."""
    check_line(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url:
        raise ValueError("must be https://HOST…")
    if parts.scheme == "http" and not allow_http and not _stays_inside(parts.hostname):
        raise ValueError(
            "http:// is for loopback and cluster-local hosts (*.svc, *.svc.cluster.local);"
            " elsewhere it needs allow_http: true"
        )
    return url


def check_peer_url(url: str) -> str:
    """Return the URL if it is that of an Alertmanager, to which a path is added; raises ValueError."""
    parts = urlsplit(url)
    if found := _API.search(parts.path):
        raise ValueError(
            f"ends in {found[0]}, which the watcher adds itself: leave it off, as in https://HOST:9093"
        )
    if parts.query or parts.fragment:
        raise ValueError("must end with the host or a path, since /api/v2/alerts is added to it")
    return url


def has_password(url: str) -> bool:
    """Whether a URL says with what to log in; a user alone is for a database no secret."""
    parts = urlsplit(url)
    return bool(parts.password or (parts.username and parts.scheme in ("http", "https")))


def check_store_url(url: str) -> str:
    """Return the URL if a store can be behind it; raises ValueError."""
    try:
        _ = urlsplit(url).port
    except ValueError:  # whose text quotes what may be a password
        raise ValueError("its port is not a number") from None
    if not _STORE.fullmatch(check_line(url)):
        raise ValueError("must be sqlite:///PATH or postgresql://…")
    return url


def signing_key(secret: str) -> bytes:
    """Return the key of a webhook secret: 24 to 64 bytes in base64, `whsec_` before it or not.

    So https://github.com/standard-webhooks/standard-webhooks has it, and every library decodes it so;
    those for Go and Rust take no base64 without its padding. Raises ValueError.
    """
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if base64.b64encode(key).decode() != text:
        raise ValueError(f"must be base64 with its padding, with or without whsec_ before: {_MAKE}")
    if len(key) not in _KEY_BYTES:
        raise ValueError(f"is base64 of {len(key)} bytes, and must be of 24 to 64: {_MAKE}")
    return key


def check_line(text: str) -> str:
    """Return the text if it is one line without control characters; raises ValueError."""
    if not text.isprintable():
        raise ValueError("holds a line break or another control character")
    return text


def parse_address(address: str) -> tuple[str | None, int]:
    """Host and port of `:8080`, `127.0.0.1:0`, `[::]:8080`; without a host, every address."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > 65_535:
        raise ValueError("must be HOST:PORT or :PORT, an IPv6 host in brackets")
    return found[1] or found[2] or None, int(found[3])


def _stays_inside(host: str) -> bool:
    """Whether a host is this machine or a Service: plain HTTP then leaves neither."""
    if host == "localhost" or host.endswith((".svc", ".svc.cluster.local")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
