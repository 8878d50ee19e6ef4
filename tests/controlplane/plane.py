"""A real API server and its controllers on loopback, with the test as the only kubelet."""

import atexit
import base64
import contextlib
import http.client
import json
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Self

import trustme

from tests.controlplane.binaries import locate
from tests.controlplane.client import ApiError, Client
from tests.controlplane.kubelet import Kubelet

SERVICE_ACCOUNT = "system:serviceaccount:deployment-watcher:deployment-watcher"
#: Who may be named in a kubeconfig: the user and the groups the API server sees.
USERS = MappingProxyType(
    {
        "admin": ("admin", "system:masters"),
        # What a token of the shipped ServiceAccount authenticates as, so that the shipped
        # RBAC rules are what the watcher runs under.
        "watcher": (
            SERVICE_ACCOUNT,
            "system:serviceaccounts,system:serviceaccounts:deployment-watcher",
        ),
        "nobody": ("nobody", ""),
    }
)
CONTROLLERS = (
    "deployment,replicaset,garbagecollector,namespace,endpointslice,job,resourcequota-controller"
)
#: What gives every namespace an account, and cleans up behind releases.
ACCOUNT_CONTROLLERS = "serviceaccount,root-ca-cert-publisher,ttl-after-finished,pvc-protection"
START_TIMEOUT = 60
STOP_TIMEOUT = 10
LOG_TAIL = 30


class StartError(Exception):
    """A process of the control plane did not come up; the message ends with the tail of its log."""


class ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager with their data in a temporary folder.

    `port`, `tokens_file` and `certificates` are read whenever the API server starts, so a test
    that restarts it may change them. A client made before with `client` keeps its port.

    With `accounts` a pod must have a ServiceAccount, and is given its token, as in any cluster.
    """

    def __init__(
        self, *, accounts: bool = False, kubelet: Callable[[Client], Kubelet] = Kubelet
    ) -> None:
        self._binaries = locate()
        self._accounts = accounts
        self.folder = Path(tempfile.mkdtemp(prefix="controlplane-"))
        self.certificates = self.folder / "certificates"
        self.tokens_file = self.folder / "tokens.csv"
        self.port, self._etcd_port, self._peer_port, self._controllers_port = free_ports(4)
        self._tokens = {user: secrets.token_hex(16) for user in USERS}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Everything runs in the process group of this guard. It kills the group when its input
        # closes, which the kernel does however this process ends.
        self._guard = subprocess.Popen(
            ["sh", "-c", "read -r _; kill -9 0"], stdin=subprocess.PIPE, process_group=0
        )
        self.admin = self.client("admin")
        self.kubelet = kubelet(self.admin)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def ca(self) -> Path:
        """The server's own certificate, which it signed itself."""
        return self.certificates / "apiserver.crt"

    def start(self) -> None:
        atexit.register(self.stop)
        self._write_secrets()
        try:
            self._start_etcd()
            self.start_apiserver()
        except StartError:
            self.stop()
            raise
        self.kubelet.start()

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self.kubelet.stop()
        self.admin.close()
        assert self._guard.stdin
        self._guard.stdin.close()
        for process in (self._guard, *self._processes.values()):
            process.wait(STOP_TIMEOUT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_apiserver(self) -> None:
        """Returns when it is ready, and the controllers with it. The data, and unless a test
        changed them the port and the certificate, are those of before."""
        self.admin.port = self.port
        self._launch(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",  # the default asks for a network interface
            "--endpoint-reconciler-type=none",  # would refuse to publish a loopback address
            f"--secure-port={self.port}",
            f"--cert-dir={self.certificates}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            f"--service-account-key-file={self.folder / 'sa.key'}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.tokens_file}",
            *([] if self._accounts else ["--disable-admission-plugins=ServiceAccount"]),
            # Without it open watches hold up an orderly end for a minute.
            "--shutdown-watch-termination-grace-period=1s",
        )
        self._await("kube-apiserver", self.admin, "/readyz")
        self._start_controllers()

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """Ends it in its own time, which takes its watches a second, or at once. etcd stays."""
        # Left alone, the controllers would take up to a minute to come back after an outage.
        self._end("kube-controller-manager", signal.SIGKILL)
        self._end("kube-apiserver", signal.SIGKILL if kill else signal.SIGTERM)

    def replace_secrets(self, user: str) -> None:
        """From its next start on the API server has another certificate, and the user another token."""
        for file in self.certificates.iterdir():
            file.unlink()
        self._tokens[user] = secrets.token_hex(16)
        self._write_tokens()

    def client(self, user: str) -> Client:
        return Client(self.port, self.ca, self._tokens[user])

    def write_kubeconfig(self, path: Path, user: str = "watcher") -> Path:
        """A kubeconfig (JSON is YAML) for one of USERS, with the certificate of now."""
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": base64.b64encode(self.ca.read_bytes()).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return path

    def _write_secrets(self) -> None:
        self._write_tokens()
        key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem
        key.write_to_path(self.folder / "sa.key")

    def _write_tokens(self) -> None:
        lines = [
            f'{self._tokens[user]},{name},{name},"{groups}"\n'
            for user, (name, groups) in USERS.items()
        ]
        self.tokens_file.write_text("".join(lines))

    def _start_etcd(self) -> None:
        client = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        self._launch(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )

    def _start_controllers(self) -> None:
        kubeconfig = self.write_kubeconfig(self.folder / "controllers.json", "admin")
        certificates = self.folder / "controllers"
        self._launch(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._controllers_port}",
            f"--cert-dir={certificates}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            f"--controllers={CONTROLLERS}{f',{ACCOUNT_CONTROLLERS}' if self._accounts else ''}",
            f"--root-ca-file={self.ca}",
            f"--service-account-private-key-file={self.folder / 'sa.key'}",
            # The defaults (20 requests a second) would take minutes for hundreds of Deployments.
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
        )
        ca = certificates / "kube-controller-manager.crt"
        with contextlib.closing(Client(self._controllers_port, ca, "")) as health:
            self._await("kube-controller-manager", health, "/healthz")

    def _launch(self, name: str, *flags: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self._binaries[name], *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                process_group=self._guard.pid,
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        self._processes[name].send_signal(how)
        self._processes[name].wait(STOP_TIMEOUT)
        del self._processes[name]

    def _await(self, name: str, client: Client, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        last = "it never answered"
        while time.monotonic() < deadline:
            for each, process in self._processes.items():
                if process.poll() is not None:
                    raise self._failed(each, f"ended with {process.returncode}")
            try:
                client.raw("GET", path)
            except (OSError, http.client.HTTPException, ApiError) as error:
                last = str(error)
                time.sleep(0.05)
            else:
                return
        raise self._failed(name, f"not ready in {START_TIMEOUT} s: {last}")

    def _failed(self, name: str, why: str) -> StartError:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return StartError("\n".join([f"{name} {why}", *lines[-LOG_TAIL:]]))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
