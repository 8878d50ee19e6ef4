"""What a value must look like; each rule says in words what is wrong, without the value in it."""

import base64
import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]*)):([0-9]{1,5})")
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
    """Return the key of a webhook secret: `whsec_` stands before base64, as Standard Webhooks has it.

    Anything else is the key itself. Raises ValueError.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    text = secret.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:  # what is outside of the alphabet would silently make another key
        key = b""
    if not key:
        raise ValueError("whsec_ must be followed by base64 of the key")
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
