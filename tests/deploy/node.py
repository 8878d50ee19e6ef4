"""A kubelet that runs pods of the watcher's image as processes of this machine.

There is no container: paths of mounts become folders, and addresses of Services those of the
pods behind them. Variables, arguments, configuration, account and probes are the pod's own.
"""

import base64
import contextlib
import http
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.controlplane.client import ApiError, Client, Json
from tests.controlplane.kubelet import Behaviour, Kubelet, crash_looping, not_ready, ready
from tests.controlplane.plane import free_ports

ROOT = Path(__file__).parents[2]
IMAGE = "deployment-watcher:"
PROGRAMS = {
    "watcher": [sys.executable, "-m", "watcher"],
    "python3": [sys.executable],
}
SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?:\d+")
POLL_SECONDS = 0.1
PROBE_TIMEOUT = 2


def ended(code: int) -> Behaviour:
    """The pod ran to its end, as those of Jobs do."""

    def status(pod: Json) -> Json:
        phase = "Failed" if code else "Succeeded"
        terminated = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        found = not_ready(pod)
        for container in found["containerStatuses"]:
            container["state"] = terminated
        return {**found, "phase": phase}

    return status


class Node(Kubelet):
    """Elsewhere than in the namespaces given to `run_pods_of` pods only have a status."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._homes: dict[str, tuple[Path, Path]] = {}
        self.processes: list[PodProcess] = []

    def run_pods_of(self, namespace: str, folder: Path, kubeconfig: Path) -> None:
        """From now on; `folder` keeps claims and logs, the kubeconfig says where the server is."""
        self._homes[namespace] = (folder, kubeconfig)

    def stop(self) -> None:
        super().stop()
        for process in self.processes:
            process.stop()

    def of(self, namespace: str) -> list["PodProcess"]:
        """The processes of all pods that have been in the namespace, oldest first."""
        return [each for each in self.processes if each.pod["metadata"]["namespace"] == namespace]

    def logs(self, namespace: str) -> str:
        """What every pod in the namespace has said."""
        folder, _ = self._homes[namespace]
        return "\n".join(
            f"--- {log.name}\n{log.read_text()}" for log in sorted(folder.glob("*.log"))
        )

    def _first_report(self, pod: Json) -> None:
        home = self._homes.get(pod["metadata"]["namespace"])
        if home is None or not pod["spec"]["containers"][0]["image"].startswith(IMAGE):
            super()._first_report(pod)
            return
        process = PodProcess(self, self._client, pod, *home)
        if process.adopt():
            self.processes.append(process)
            process.start()

    def address(self, found: re.Match[str]) -> str:
        """Where a pod behind a Service answers; its name when there is none."""
        name, namespace = found.groups()
        service = self._client.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        wanted = service["spec"]["selector"].items()
        for each in self.of(namespace):
            if each.is_ready and wanted <= each.pod["metadata"]["labels"].items():
                return f"127.0.0.1:{each.port}"
        return found[0]


class PodProcess(threading.Thread):
    """One pod with one container, from its binding to its end."""

    def __init__(
        self, node: Node, client: Client, pod: Json, folder: Path, kubeconfig: Path
    ) -> None:
        super().__init__(name=pod["metadata"]["name"], daemon=True)
        self.pod = pod
        self.is_ready = False
        [self.port] = free_ports(1)
        [self.container] = pod["spec"]["containers"]
        self._node = node
        self._client = client
        self._home = folder
        self._log = folder / f"{self.name}.log"
        self._kubeconfig = kubeconfig
        self._namespace = pod["metadata"]["namespace"]
        self._here = f"/api/v1/namespaces/{self._namespace}"
        self._path = f"{self._here}/pods/{self.name}"
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def adopt(self) -> bool:
        """Bind it to a node, so that its deletion waits for its process; False if it is gone."""
        target = {"apiVersion": "v1", "kind": "Node", "name": "loopback"}
        try:
            self._client.create(
                f"{self._path}/binding",
                {"metadata": {"name": self.name}, "target": target},
            )
            self._client.patch_status(self._path, not_ready(self.pod))
        except ApiError as error:
            gone = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT, http.HTTPStatus.FORBIDDEN)
            if error.status not in gone:
                raise
            return False
        return True

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the server has ended
            while not self._ending.is_set():
                code = self._live()
                if code is None:
                    self._finish()
                    return
                if self.pod["spec"]["restartPolicy"] == "Never":
                    self._report(ended(code))
                    self._ending.wait()
                    return
                self._report(crash_looping)
                self._ending.wait(1)

    def stop(self) -> None:
        """End it at once."""
        self._ending.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.join()

    def _live(self) -> int | None:
        """Run it until it ends, which gives its exit code, or until the pod is to go."""
        if (prepared := self._prepared()) is None:
            return None
        command, env = prepared
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=env, cwd=self._work(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        while not self._ending.wait(POLL_SECONDS):
            if (code := self._process.poll()) is not None:
                self.is_ready = False
                return code
            if self._is_deleted():
                return None
            if self.is_ready != (answers := self._probe()):
                self.is_ready = answers
                self._report(ready if answers else not_ready)
        return None

    def _prepared(self) -> tuple[list[str], dict[str, str]] | None:
        """Wait for all that the pod names, as a kubelet does; None if it is to go before."""
        while not self._is_deleted():
            with contextlib.suppress(ApiError):  # not there yet; or its namespace is going
                return self._command()
            if self._ending.wait(POLL_SECONDS):
                break
        return None

    def _is_deleted(self) -> bool:
        try:
            found = self._client.get(self._path)
        except ApiError as error:
            if error.status == http.HTTPStatus.NOT_FOUND:
                return True
            raise
        return "deletionTimestamp" in found["metadata"]

    def _finish(self) -> None:
        """SIGTERM, the pod's grace, SIGKILL; then the pod is gone."""
        self.is_ready = False
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(self.pod["spec"]["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ApiError):
            self._client.raw("DELETE", self._path, b'{"gracePeriodSeconds": 0}')

    def _report(self, behaviour: Behaviour) -> None:
        with contextlib.suppress(ApiError):  # deleted meanwhile
            self._node.report(self.pod, behaviour)

    def _probe(self) -> bool:
        """Whether the readiness probe passes, as the container says that it is to be asked."""
        if (probe := self.container.get("readinessProbe")) is None:
            return True
        return self.answers(probe) in range(200, 400)

    def answers(self, probe: Json) -> int:
        """The status that an HTTP probe gets; 0 for none."""
        try:
            return self._ask(probe["httpGet"]["path"])[0]
        except (OSError, http.client.HTTPException):
            return 0

    def said(self) -> str:
        """Its log so far, of all its starts."""
        return self._log.read_text() if self._log.exists() else ""

    def page(self, path: str) -> Json:
        """What one of its pages says."""
        found: Json = json.loads(self._ask(path)[1])
        return found

    def _ask(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PROBE_TIMEOUT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The program as the image has it, and its variables."""
        mounts = self._mounts()
        program, *rest = self.container.get("command") or ["watcher"]
        arguments = [*rest, *self.container.get("args", [])]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
        if self.container.get("ports"):  # it has no network of its own
            env |= {"PORT": str(self.port), "WATCHER_WEB__ADDRESS": f"127.0.0.1:{self.port}"}
        for path, folder in mounts.items():
            if path.endswith("kubernetes.io/serviceaccount"):
                env["KUBECONFIG"] = str(self._account(folder))
        env |= dict(self._variables(mounts))
        return [*PROGRAMS[program], *(self._local(each, mounts) for each in arguments)], env

    def _work(self) -> Path:
        folder = self._home / self.name
        folder.mkdir(exist_ok=True)
        return folder

    def _local(self, text: str, mounts: dict[str, Path]) -> str:
        """The same text where it names files and Services as they are found on this machine."""
        if mounts:
            paths = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
            text = re.sub(rf"(?<![\w.-])({paths})(?![\w.-])", lambda m: str(mounts[m[1]]), text)
        return SERVICE.sub(self._node.address, text)

    def _mounts(self) -> dict[str, Path]:
        """Each path of the container with the folder that stands for it, filled."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"].get("volumes", [])}
        mounts = {
            mount["mountPath"]: volumes[mount["name"]]
            for mount in self.container.get("volumeMounts", [])
        }
        folders = {path: self._folder(volume) for path, volume in mounts.items()}
        for path, volume in mounts.items():
            for source in volume.get("projected", {}).get("sources", [volume]):
                for name, text in self._files(source).items():
                    (folders[path] / name).write_text(self._local(text, folders))
        return folders

    def _folder(self, volume: Json) -> Path:
        folder = self._work() / "volumes" / str(volume["name"])
        if "persistentVolumeClaim" in volume:
            claim: str = volume["persistentVolumeClaim"]["claimName"]
            path = f"{self._here}/persistentvolumeclaims/{claim}"
            self._client.patch_status(path, {"phase": "Bound"})
            folder = self._home / "claims" / claim
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _files(self, source: Json) -> dict[str, str]:
        match source:
            case {"configMap": {"name": name}}:
                found = self._client.get(f"{self._here}/configmaps/{name}")
                return dict(found.get("data", {}))
            case {"secret": {"secretName": name}}:
                return self._secret(name)
            case {"serviceAccountToken": wanted}:
                return {wanted["path"]: self._token()}
            case _:
                return {}

    def _secret(self, name: str) -> dict[str, str]:
        found = self._client.get(f"{self._here}/secrets/{name}")
        return {key: base64.b64decode(text).decode() for key, text in found.get("data", {}).items()}

    def _variables(self, mounts: dict[str, Path]) -> Iterator[tuple[str, str]]:
        for source in self.container.get("envFrom", []):
            reference = source["secretRef"]
            try:
                found = self._secret(reference["name"])
            except ApiError:
                if not reference.get("optional"):
                    raise
                continue
            yield from found.items()
        for variable in self.container.get("env", []):
            match variable:
                case {"value": value, "name": name}:
                    yield name, self._local(value, mounts)
                case {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}, "name": name}:
                    yield name, self._secret(secret)[key]
                case _:
                    raise ValueError(f"this node cannot give a pod the variable {variable}")

    def _token(self) -> str:
        """A token of the pod's own account, bound to the pod."""
        reference = {"apiVersion": "v1", "kind": "Pod", "name": self.name}
        reference["uid"] = self.pod["metadata"]["uid"]
        account = self.pod["spec"]["serviceAccountName"]
        asked = {"spec": {"boundObjectRef": reference}}
        answer = self._client.create(f"{self._here}/serviceaccounts/{account}/token", asked)
        token: str = answer["status"]["token"]
        return token

    def _account(self, folder: Path) -> Path:
        """A kubeconfig of the mounted account: this machine has no /var/run/secrets of the pod."""
        text = self._kubeconfig.read_text()
        file = self._work() / "kubeconfig"
        file.write_text(re.sub(r'"token": "[^"]*"', f'"tokenFile": "{folder / "token"}"', text))
        return file
