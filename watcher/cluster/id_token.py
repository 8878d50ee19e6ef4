"""An OpenID Connect token out of a kubeconfig's auth-provider: it serves until it expires."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from watcher.cluster.auth import sendable
from watcher.cluster.snapshot import UNDECODABLE
from watcher.errors import ConfigError, Unauthorized
from watcher.ports import Clock

_LOG: Final = structlog.stdlib.get_logger(__name__)
_CURE: Final = (
    "an OIDC auth-provider's token is not refreshed here, and kubectl does so only when it is run;"
    " use an exec plugin (kubectl oidc-login) or a service account's token"
)


class _Claims(Struct):
    exp: float | None = None


class IdToken:
    """The header of such a token, refused once it has expired.

    Refreshing is left to whoever owns the file: a refresh token that rotates has one owner, and
    using it here would log the others out.
    """

    def __init__(self, config: Mapping[str, Any] | None, clock: Clock) -> None:
        """Raises ConfigError without a token, and with one that has expired."""
        token = str((config or {}).get("id-token") or "")
        if not token:
            raise ConfigError([f"the OIDC auth-provider has no id-token; {_CURE}"])
        self._header = sendable(f"Bearer {token}")
        self._clock, self._expires_at = clock, _expiry(token)
        if words := self._expired():
            raise ConfigError([words])
        if self._expires_at is not None:
            _LOG.warning("cluster.token_expires", at=self._expires_at.isoformat(), why=_CURE)

    async def header(self) -> str:
        """Give the header; raises Unauthorized once the token has expired."""
        if words := self._expired():
            raise Unauthorized(words)
        return self._header

    def _expired(self) -> str:
        if self._expires_at is None or self._clock.wall() < self._expires_at:
            return ""
        return f"the id-token expired at {self._expires_at:%Y-%m-%d %H:%M:%S} UTC; {_CURE}"


def _expiry(token: str) -> datetime | None:
    """Read `exp` of a JWT (RFC 7519 §4.1.4); None where it has none, which its issuer may do."""
    try:
        claims = token.split(".")[1]
        plain = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        expires = msgspec.json.decode(plain, type=_Claims).exp
        return None if expires is None else datetime.fromtimestamp(expires, UTC)
    except (*UNDECODABLE, IndexError, ValueError, OverflowError, OSError):
        return None
