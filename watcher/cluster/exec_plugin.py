"""Credentials that another program prints: client.authentication.k8s.io, with a deadline (W28)."""

import asyncio
import os
import signal
import ssl
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from watcher.cluster.auth import sendable
from watcher.core.model import EPOCH, Json
from watcher.errors import ConfigError, Unauthorized
from watcher.ports import Clock

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
        deadline: float = 30.0,
    ) -> None:
        """`folder` is the kubeconfig's; client certificates go into `tls`. Raises KeyError."""
        command = str(spec["command"])
        self._name = Path(command).name
        self._version = str(spec["apiVersion"])
        self._argv = [str(folder / command) if os.sep in command else command]
        self._argv += map(str, spec.get("args") or ())
        info = {"interactive": False, **({"cluster": cluster} if cluster else {})}
        asked = {"apiVersion": self._version, "kind": "ExecCredential", "spec": info}
        self._environ = {
            **environ,
            **{entry["name"]: str(entry["value"]) for entry in spec.get("env") or ()},
            "KUBERNETES_EXEC_INFO": msgspec.json.encode(asked).decode(),
        }
        self._clock = clock
        self._tls = tls
        self._deadline = deadline
        self._header, self._expires_at = "", EPOCH
        self._running = asyncio.Lock()

    async def header(self) -> str:
        """Give the present header; an old one serves while a new one cannot be had."""
        async with self._running:
            if self._clock.wall() + _LEEWAY >= self._expires_at:
                try:
                    self._accept(await self._run())
                except (Unauthorized, ConfigError) as error:
                    if self._clock.wall() >= self._expires_at:
                        raise Unauthorized(f"exec plugin {self._name}: {error}") from None
        return self._header

    async def _run(self) -> bytes:
        """Give what the plugin prints; raises Unauthorized with the first line of its complaint."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv, env=self._environ, start_new_session=True,
                stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise Unauthorized(getattr(error, "strerror", None) or "cannot be started") from None
        try:
            async with asyncio.timeout(self._deadline):
                printed, complaint = await process.communicate()
        except TimeoutError:
            raise Unauthorized(f"no answer in {self._deadline:g} s") from None
        finally:
            with suppress(ProcessLookupError):  # what it started goes with it
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode:
            said = complaint.decode(errors="replace").strip().partition("\n")[0][:_TEXT]
            raise Unauthorized(f"exit code {process.returncode}: {said or 'it said nothing'}")
        return printed

    def _accept(self, printed: bytes) -> None:
        """Take what it printed; a client certificate is for all connections from now on."""
        try:
            credential = msgspec.json.decode(printed, type=_Credential)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unauthorized("what it printed is no ExecCredential") from None
        given = credential.status
        if credential.api_version != self._version or credential.kind != "ExecCredential":
            raise Unauthorized(f"what it printed is no ExecCredential of {self._version}")
        certified = given.client_certificate_data and given.client_key_data
        if certified and self._tls is not None:
            with tempfile.NamedTemporaryFile("w") as pair:
                pair.write(f"{given.client_certificate_data}\n{given.client_key_data}")
                pair.flush()
                try:
                    self._tls.load_cert_chain(pair.name)
                except ssl.SSLError:
                    raise Unauthorized("its certificate and key do not fit") from None
        self._header = "" if certified and not given.token else sendable(f"Bearer {given.token}")
        self._expires_at = given.expiration_timestamp or datetime.max.replace(tzinfo=UTC)
