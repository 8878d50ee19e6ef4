"""Where an API server is and who we are to it, kept fresh: one value to ask before each request."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct

from watcher.config.secrets import SecretRef, hide, mask
from watcher.errors import ConfigError
from watcher.ports import Clock

_LOG: Final = structlog.stdlib.get_logger(__name__)
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


class Access(Struct, frozen=True):
    """What one reading of a kubeconfig or service account gives."""

    endpoint: Endpoint
    header: Callable[[], Awaitable[str]]
    """Gives the present Authorization, empty for none; raises Unauthorized without a usable one."""
    files: tuple[Path, ...] = ()
    """What this came from, and is to be read anew when it changes."""
    context: str | None = None
    """Of the kubeconfig."""


class Auth:
    """The endpoint and the headers for the next request."""

    def __init__(self, read: Callable[[str | None], Access], context: str | None = None) -> None:
        """`read` is called now, when a file changes and when the API server refuses what it gave.

        It is given the context: the same for ever, whatever becomes the current one meanwhile.
        """
        self._read = read
        self._access = read(context)
        self._stamps = _stamps(self._access.files)
        self._complaint = ""
        self._told: tuple[str, str, bool] | None = None
        self._renewing = asyncio.Lock()
        self._tell()

    @property
    def server(self) -> str:
        """Scheme and host of the URL, without whatever it may tell besides."""
        return mask(self._access.endpoint.url)

    async def current(self) -> tuple[Endpoint, Mapping[str, str]]:
        """Give both as they are now; raises Unauthorized without usable credentials."""
        if _stamps(self._access.files) != self._stamps:
            self._read_anew()
        access = self._access
        header = await access.header()
        return access.endpoint, {"Authorization": header} if header else {}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """Read everything anew after a 401, unless somebody has done so meanwhile (W26, W28).

        Tells whether there is something else to try.
        """
        async with self._renewing:
            if (await self.current())[1] == refused:
                self._read_anew()
            return (await self.current())[1] != refused

    def _read_anew(self) -> None:
        """Take up what the files say now; what cannot be used leaves everything as it is (W29)."""
        before = self._access
        stamps = _stamps(before.files)  # of before the reading: a change during it is another one
        try:
            self._access = self._read(before.context)
        except ConfigError as error:  # tried again with the next request, and told once
            if str(error) != self._complaint:
                _LOG.warning("cluster.credentials_kept", error=str(error))
            self._complaint = str(error)
            return
        self._complaint = ""
        same = self._access.files == before.files
        self._stamps = stamps if same else _stamps(self._access.files)
        self._tell()

    def _tell(self) -> None:
        """Log where we go and how, if that is news."""
        endpoint = self._access.endpoint
        unverified = endpoint.tls is not None and endpoint.tls.verify_mode is ssl.CERT_NONE
        via = mask(endpoint.proxy) if endpoint.proxy else "no proxy"
        told = (mask(endpoint.url), via, unverified)
        if told == self._told:
            return
        self._told = told
        _LOG.info("cluster.endpoint", server=told[0], via=via)
        if unverified:
            why = "insecure-skip-tls-verify is set: anybody on the way can read the token"
            _LOG.warning("cluster.tls_not_verified", server=told[0], why=why)


def _stamps(files: Iterable[Path]) -> list[tuple[int, int, int]]:
    """Tell whether a file was written or replaced, also behind a link, as Kubernetes does it."""
    found = []
    for file in files:
        with suppress(OSError):
            seen = file.stat()
            found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return found


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
        return Auth(lambda _: official.in_cluster(service_account, environ, strict_x509))
    usual = environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    paths = str(kubeconfig) if kubeconfig else usual
    return Auth(lambda of: official.from_files(paths, of, environ, clock, strict_x509), context)


class TokenFile:
    """A token that somebody rotates on disk: read for each request (W26 asks for once a minute)."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError."""
        self._file = SecretRef(file=path)
        self._header = self._read()

    async def header(self) -> str:
        """Give the present header; while the file cannot be read the old one serves."""
        try:
            self._header = self._read()
        except ConfigError as error:
            _LOG.warning("cluster.token_kept", error=str(error))
        return self._header

    def _read(self) -> str:
        return sendable(f"Bearer {self._file.read()}")


def fixed(header: str) -> Callable[[], Awaitable[str]]:
    """Give always the same."""

    async def give() -> str:
        return header

    return give


def sendable(header: str) -> str:
    """Let no log line show the token in this; raises ConfigError if no header can have it."""
    token = header.partition(" ")[2]
    if not (token and header.isascii() and header.isprintable()):
        raise ConfigError(["no usable token: empty, or with characters that no header can have"])
    hide(token)
    return header
