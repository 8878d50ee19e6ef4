"""Where an API server is and who we are to it, kept fresh: one value to ask before each request."""

import asyncio
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from msgspec import Struct

from watcher.config.secrets import hide, mask
from watcher.errors import ConfigError
from watcher.ports import Clock

_LOG: Final = structlog.stdlib.get_logger(__name__)
_TOKEN_FOR: Final = timedelta(seconds=60)
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Endpoint(Struct, frozen=True):
    """How to reach an API server."""

    url: str
    """Without a slash at its end; it may have a path."""
    tls: ssl.SSLContext | None = None
    """None for http."""
    proxy: str | None = None
    server_name: str | None = None
    """What its certificate is for, where that is not the host of the URL."""


class Credentials(Protocol):
    """Something that knows an Authorization header."""

    async def header(self) -> str:
        """Give the present one, empty for none; raises Unauthorized when it cannot be had."""
        ...


class Access(Struct, frozen=True):
    """What one reading of a kubeconfig or service account gives."""

    endpoint: Endpoint
    credentials: Credentials


class Fixed(Struct, frozen=True):
    """A header that was written out, or none."""

    value: str = ""

    async def header(self) -> str:
        """Give it."""
        return self.value


class TokenFile:
    """A token that somebody rotates on disk."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._token = self._read()
        self._read_at = clock.now()

    async def header(self) -> str:
        """Give the token, re-read once a minute; while it cannot be read the old one serves."""
        if self._clock.now() - self._read_at >= _TOKEN_FOR:
            self._read_at = self._clock.now()
            try:
                self._token = self._read()
            except ConfigError as error:
                _LOG.warning("cluster.token_kept", error=str(error))
        return bearer(self._token)

    def _read(self) -> str:
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ConfigError([f"token file {self._path}: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise ConfigError([f"token file {self._path}: this is no token"]) from None
        if not is_token(token):
            raise ConfigError([f"token file {self._path}: this is no token"])
        return token


class Auth:
    """The endpoint and the headers for the next request."""

    def __init__(self, read: Callable[[], Access]) -> None:
        """`read` is called now, and again whenever the API server refuses what it gave."""
        self._read = read
        self._access = read()
        self._renewing = asyncio.Lock()
        endpoint = self._access.endpoint
        via = mask(endpoint.proxy) if endpoint.proxy else "no proxy"
        _LOG.info("cluster.endpoint", server=mask(endpoint.url), via=via)

    async def current(self) -> tuple[Endpoint, Mapping[str, str]]:
        """Give both as they are now; raises Unauthorized without usable credentials."""
        access = self._access
        header = await access.credentials.header()
        return access.endpoint, {"Authorization": header} if header else {}

    async def renew(self, refused: Mapping[str, str]) -> None:
        """Read everything anew after a 401, unless somebody has done so meanwhile (W26, W28)."""
        async with self._renewing:
            if (await self.current())[1] != refused:
                return
            try:
                self._access = self._read()
            except ConfigError as error:
                _LOG.warning("cluster.credentials_kept", error=str(error))


def find_auth(
    clock: Clock,
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    service_account: Path = _SERVICE_ACCOUNT,
    strict_x509: bool = True,
) -> Auth:
    """Take the kubeconfig, else the pod's service account, else KUBECONFIG, else ~/.kube/config.

    `strict_x509=False` accepts cluster CAs without key identifiers, which Python 3.13 refuses;
    everything else is still verified (W30). Raises ConfigError, which names the file.
    """
    from watcher.cluster import kubeconfig as official  # late: it costs 0.3 s and 20 MB

    in_pod = "KUBERNETES_SERVICE_HOST" in environ and (service_account / "token").exists()
    if kubeconfig is None and context is None and in_pod:
        return Auth(lambda: official.in_cluster(service_account, environ, clock, strict_x509))
    usual = environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    paths = [kubeconfig] if kubeconfig else [Path(p) for p in usual.split(os.pathsep) if p]
    return Auth(lambda: official.from_files(paths, context, environ, clock, strict_x509))


def is_token(text: str) -> bool:
    """Whether this can be sent in a header."""
    return bool(text) and text.isascii() and text.isprintable()


def bearer(token: str) -> str:
    """Make a token a header, and let no log line show it."""
    hide(token)
    return f"Bearer {token}"


def tls_context(
    authority: str | None,
    certificate: str | None = None,
    key: str | None = None,
    *,
    verify: bool = True,
    strict: bool = True,
) -> ssl.SSLContext:
    """Trust that CA file, or the system's; show that certificate."""
    context = ssl.create_default_context(cafile=authority)
    if not strict:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def environment_proxy(url: str, environ: Mapping[str, str]) -> str | None:
    """Give the proxy of the environment unless NO_PROXY has the host, its domain or its range.

    The ranges are why this is not left to a library (W32).
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    settings = {key.lower(): value for key, value in environ.items()}
    proxy = settings.get(f"{parts.scheme}_proxy")
    if not proxy or host == "localhost":
        return None
    entries = [entry.strip() for entry in settings.get("no_proxy", "").split(",")]
    names = {"no": ",".join(entry for entry in entries if "/" not in entry)}
    if urllib.request.proxy_bypass_environment(host, names):  # type: ignore[attr-defined]
        return None
    return None if _in_ranges(host, [entry for entry in entries if "/" in entry]) else proxy


def _in_ranges(host: str, ranges: list[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for entry in ranges:
        try:
            if address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
