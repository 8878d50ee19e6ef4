"""A pair of real Alertmanagers on loopback, which tell each other what they were told."""

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.controlplane.binaries import ControlPlaneUnavailable, cache, go_command, locked, run
from tests.controlplane.client import Json
from tests.controlplane.plane import free_ports
from tests.controlplane.receivers import eventually

HERE = Path(__file__).parent
PACKAGE = "github.com/prometheus/alertmanager/cmd/alertmanager"
STOP_TIMEOUT = 10


class AlertmanagerUnavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """This machine neither has an Alertmanager in its cache nor can build one."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no Alertmanager: {why} (WITHOUT=alertmanager leaves its tests out)")


def locate(say: Callable[[str], None]) -> Path:
    """The binary; what is not in the user's cache is built, which takes a minute."""
    module = (HERE / "go.mod").read_text()
    digest = hashlib.sha256(module.encode() + (HERE / "go.sum").read_bytes()).hexdigest()
    version = re.search(r"prometheus/alertmanager (v\S+)", module)
    folder = cache().parent / "alertmanager"
    target = folder / f"{version[1] if version else ''}-{digest[:12]}" / "alertmanager"
    if not target.is_file():
        try:
            with locked(folder / "lock"):
                if not target.is_file():
                    say("building Alertmanager: a minute when Go has nothing cached")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_suffix(".partial")
                    go = [go_command(say), "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
                    run([*go, "-ldflags", "-s -w", "-o", str(partial), PACKAGE], HERE)
                    partial.replace(target)
        except ControlPlaneUnavailable as error:
            why = str(error).removeprefix("no control plane: ").partition(" (KUBEBUILDER")[0]
            raise AlertmanagerUnavailable(why) from error
    return target


class Peer:
    """One Alertmanager of the pair; its data go with it when it is `wiped`."""

    def __init__(self, binary: Path, folder: Path, ports: tuple[int, int], other: int) -> None:
        self.url = f"http://127.0.0.1:{ports[0]}"
        self._folder = folder
        self._command = [
            str(binary), f"--config.file={folder.parent / 'config.yaml'}",
            f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{ports[0]}",
            f"--cluster.listen-address=127.0.0.1:{ports[1]}", f"--cluster.peer=127.0.0.1:{other}",
            "--cluster.settle-timeout=300ms", "--cluster.peer-timeout=2s", "--log.level=warn",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        eventually(self._ready, instead=lambda: (self._folder / "log").read_text()[-2000:])

    def stop(self, *, wiped: bool = False) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT)
            self._process = None
        if wiped:
            shutil.rmtree(self._folder)

    @property
    def active(self) -> list[Json]:
        """The alerts that fire by what it knows."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=5) as answer:
            found: list[Json] = json.loads(answer.read())
            return found

    @property
    def names(self) -> list[str]:
        """Of their Deployments, with the severity: `web critical`."""
        return sorted(f"{a['labels']['deployment']} {a['labels']['severity']}" for a in self.active)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def pair(
    binary: Path, folder: Path, receiver: str, group_by: Sequence[str] = ("...",)
) -> Iterator[tuple[Peer, Peer]]:
    """Two that send what they have grouped to `receiver`, a webhook."""
    config = {
        "route": {
            "receiver": "hook", "group_by": list(group_by), "group_wait": "100ms",
            "group_interval": "500ms",
        },
        "receivers": [
            {"name": "hook", "webhook_configs": [{"url": receiver, "send_resolved": True}]}
        ],
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))
    web1, mesh1, web2, mesh2 = free_ports(4)
    one = Peer(binary, folder / "one", (web1, mesh1), mesh2)
    two = Peer(binary, folder / "two", (web2, mesh2), mesh1)
    try:
        one.start()
        two.start()
        yield one, two
    finally:
        one.stop()
        two.stop()
