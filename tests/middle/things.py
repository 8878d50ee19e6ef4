"""What stands between a watcher and its API server in real clusters: real software, on loopback."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.controlplane.plane import ControlPlane, free_ports
from tests.deploy import tools

START_TIMEOUT = 20
STOP_TIMEOUT = 10

Between = Callable[[ControlPlane, Path, int], list[str | Path]]
"""Writes what it needs into a folder, and gives the command that listens on a port of loopback."""


class Way:
    """How one watcher reaches the API server."""

    def __init__(self, name: str, between: Between | None, scheme: str = "https") -> None:
        self.name = name
        self._between = between
        self._scheme = scheme

    @contextmanager
    def open(self, plane: ControlPlane, folder: Path) -> Iterator[Path]:
        """Until the block ends; gives the kubeconfig that leads through it."""
        folder.mkdir()
        kubeconfig = plane.write_kubeconfig(folder / "kubeconfig")
        if self._between is None:
            yield kubeconfig
            return
        [port] = free_ports(1)
        command = self._between(plane, folder, port)
        with (folder / "between.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        try:
            _await(port, process, folder / "between.log")
            yield self._through(folder, kubeconfig, port)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT)

    def _through(self, folder: Path, direct: Path, port: int) -> Path:
        config = json.loads(direct.read_text())
        cluster = config["clusters"][0]["cluster"]
        cluster["server"] = f"{self._scheme}://127.0.0.1:{port}"
        if (ca := folder / "ca.pem").exists():
            del cluster["certificate-authority-data"]
            cluster["certificate-authority"] = str(ca)
        if self._scheme == "http":
            config["users"][0]["user"] = {}
        path = folder / "through"
        path.write_text(json.dumps(config))
        return path


def kubectl_proxy(plane: ControlPlane, folder: Path, port: int) -> list[str | Path]:
    kubectl = tools.locate()["kubectl"]
    return [kubectl, "proxy", f"--kubeconfig={folder / 'kubeconfig'}", f"--port={port}"]


def nginx(plane: ControlPlane, folder: Path, port: int) -> list[str | Path]:
    """With TLS, and otherwise its defaults: buffering, and 60 s until it ends what says nothing."""
    pem = _certificate(folder)
    paths = "".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder / "pid"}; error_log stderr; events {{}}
        http {{ access_log off; {paths}
          server {{ listen 127.0.0.1:{port} ssl;
            ssl_certificate {pem}; ssl_certificate_key {pem};
            location / {{ proxy_pass https://127.0.0.1:{plane.port}; }} }} }}"""
    )
    return [_installed("nginx"), "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]


def haproxy_http(plane: ControlPlane, folder: Path, port: int) -> list[str | Path]:
    """With TLS and Debian's time limits: 50 s until it cuts what says nothing."""
    bind = f"ssl crt {_certificate(folder)}"
    return _haproxy(plane, folder, port, "http", 50, bind, "ssl verify none")


def haproxy_tcp(plane: ControlPlane, folder: Path, port: int) -> list[str | Path]:
    """As kubeadm's guide to highly available clusters has it: bytes are passed on, and 35 s."""
    return _haproxy(plane, folder, port, "tcp", 35)


def _haproxy(
    plane: ControlPlane, folder: Path, port: int, mode: str, limit: int,
    bind: str = "", server: str = "",
) -> list[str | Path]:  # fmt: skip
    config = folder / "haproxy.cfg"
    config.write_text(
        f"defaults\n  mode {mode}\n  timeout connect 5s\n"
        f"  timeout client {limit}s\n  timeout server {limit}s\n"
        f"frontend f\n  bind 127.0.0.1:{port} {bind}\n  default_backend b\n"
        f"backend b\n  server a 127.0.0.1:{plane.port} {server}\n"
    )
    return [_installed("haproxy"), "-db", "-f", config]


WAYS = (
    Way("direct", None),
    Way("kubectl-proxy", kubectl_proxy, "http"),
    Way("haproxy-http", haproxy_http),
    Way("haproxy-tcp", haproxy_tcp),
    Way("nginx", nginx),
)


def _certificate(folder: Path) -> Path:
    """Of a server on loopback, with its key; its CA is `ca.pem` beside it."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    made = ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    made.write_to_path(folder / "server.pem")
    return folder / "server.pem"


def _installed(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.fail(f"{name} is not installed (Debian: apt-get install {name})", pytrace=False)
    return found


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            ended = process.poll() is not None
            assert not ended and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
