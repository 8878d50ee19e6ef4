"""Credentials that another program prints: client.authentication.k8s.io, with a deadline (W28)."""

import asyncio
import os
import signal
import ssl
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from watcher.cluster.auth import bearer, is_token
from watcher.core.model import Json
from watcher.errors import Unauthorized
from watcher.ports import Clock

_DEADLINE: Final = 30.0
_LEEWAY: Final = timedelta(seconds=30)
_TEXT: Final = 200


class _Status(Struct, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: Annotated[datetime, Meta(tz=True)] | None = None


class _Credential(Struct, rename="camel"):
    api_version: str
    kind: str
    status: _Status


class ExecPlugin:
    """Runs the plugin when there is no credential yet, and shortly before it expires."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        folder: Path,
        environ: Mapping[str, str],
        clock: Clock,
        tls: ssl.SSLContext | None,
        cluster: Json | None,
        deadline: float = _DEADLINE,
    ) -> None:
        """`folder` is the kubeconfig's; client certificates go into `tls`. Raises KeyError."""
        command = str(spec["command"])
        self._name = Path(command).name
        self._version = str(spec["apiVersion"])
        self._argv = [str(folder / command) if os.sep in command else command]
        self._argv += [str(argument) for argument in spec.get("args") or ()]
        info = {"interactive": False, **({"cluster": _about(cluster)} if cluster else {})}
        asked = {"apiVersion": self._version, "kind": "ExecCredential", "spec": info}
        self._environ = {
            **environ,
            **{entry["name"]: str(entry["value"]) for entry in spec.get("env") or ()},
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(asked).decode(),
        }
        self._clock = clock
        self._tls = tls
        self._deadline = deadline
        self._given: _Status | None = None
        self._running = asyncio.Lock()

    async def header(self) -> str:
        """Give the present header; an old one serves while a new one cannot be had."""
        async with self._running:
            if self._left() <= _LEEWAY:
                try:
                    self._given = self._accept(await self._run())
                except Unauthorized:
                    if self._left() <= timedelta():
                        raise
        return bearer(self._given.token) if self._given and self._given.token else ""

    def _left(self) -> timedelta:
        if self._given is None:
            return timedelta()
        expires = self._given.expiration_timestamp
        return timedelta.max if expires is None else expires - self._clock.wall()

    async def _run(self) -> bytes:
        """Give what the plugin prints; raises Unauthorized with the first line of its complaint."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise self._failed(getattr(error, "strerror", None) or "cannot be started") from None
        try:
            async with asyncio.timeout(self._deadline):
                printed, complaint = await process.communicate()
        except TimeoutError:
            raise self._failed(f"no answer in {self._deadline:g} s") from None
        finally:
            with suppress(ProcessLookupError):  # what it started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode:
            said = complaint.decode(errors="replace").strip().partition("\n")[0][:_TEXT]
            raise self._failed(f"exit code {process.returncode}: {said or 'it said nothing'}")
        return printed

    def _accept(self, printed: bytes) -> _Status:
        try:
            credential = msgspec.json.decode(printed, type=_Credential)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._failed("what it printed is no ExecCredential") from None
        given = credential.status
        if credential.api_version != self._version or credential.kind != "ExecCredential":
            raise self._failed(f"what it printed is no ExecCredential of {self._version}")
        if given.client_certificate_data and given.client_key_data:
            self._show(given)
        elif not is_token(given.token):
            raise self._failed("it gave neither a usable token nor a certificate with its key")
        return given

    def _show(self, given: _Status) -> None:
        """Use a client certificate for all connections from now on."""
        with tempfile.TemporaryDirectory() as folder:
            pair = (Path(folder) / "certificate", Path(folder) / "key")
            for file, text in zip(
                pair, (given.client_certificate_data, given.client_key_data), strict=True
            ):
                file.write_text(text)
            try:
                if self._tls is not None:
                    self._tls.load_cert_chain(*pair)
            except ssl.SSLError:
                raise self._failed("its certificate and key do not fit") from None

    def _failed(self, why: str) -> Unauthorized:
        return Unauthorized(f"exec plugin {self._name}: {why}")


def _about(cluster: Json) -> Json:
    """What a plugin may be told of the cluster (provideClusterInfo)."""
    keys = (
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority-data",
        "proxy-url",
    )
    return {key: cluster[key] for key in keys if key in cluster}
