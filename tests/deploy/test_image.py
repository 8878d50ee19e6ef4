"""The image: what is in it, and that the watcher in it does its work with next to no rights."""

import http.client
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.controlplane.plane import ControlPlane, free_ports
from tests.controlplane.receivers import eventually
from tests.deploy.image import Container, settings
from tests.deploy.release import Release
from watcher import __version__

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
Start = Callable[[Mapping[str, Path]], Container]


@pytest.fixture
def container(built: None, tmp_path: Path) -> Iterator[Start]:
    """Makes a container with those folders mounted, and with a store and a /tmp to write to."""
    made: list[Container] = []

    def make(mounts: Mapping[str, Path]) -> Container:
        written = {
            path: tmp_path / name for path, name in (("/var/lib/watcher", "store"), ("/tmp", "tmp"))
        }
        for folder in written.values():
            folder.mkdir()
        made.append(Container({**written, **mounts}))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def test_what_it_says_of_itself(built: None) -> None:
    """A user that Kubernetes can see is not root, and the command that manifests rely on."""
    found = settings()
    assert found["User"] == "65532:65532"
    assert (found["Entrypoint"], found["Cmd"]) == (["watcher"], ["run"])
    assert list(found["ExposedPorts"]) == ["8080/tcp"]
    assert "Healthcheck" not in found
    assert found["Labels"]["org.opencontainers.image.title"] == "deployment-watcher"
    assert found["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_nothing_to_build_with_is_left(container: Start) -> None:
    """The environment has the watcher and what it needs: no pip, no compiler, no cache, no tests."""
    root = container({}).root
    installed = {path.name for path in (root / "opt/watcher").rglob("*")}
    assert "watcher" in installed
    assert installed.isdisjoint({"pip", "setuptools", "hatchling", "pytest", "wheel"})
    for gone in ("src", "build", "dist", "root/.cache", "usr/bin/gcc", "usr/bin/make"):
        assert not (root / gone).exists()


def test_it_starts_without_any_right(container: Start) -> None:
    process = container({}).start("--help")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Usage: watcher" in said


def test_its_file_system_cannot_be_written_to(container: Start) -> None:
    """Not even where its user could: a store outside of the volumes is refused with the reason."""
    process = container({}).start("migrate", WATCHER_STORE__URL="sqlite:////opt/x.db")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "/opt/x.db: Read-only file system" in said or "/opt/x.db: Permission denied" in said


def test_it_migrates_as_the_rendered_job_does(container: Start, release: Release) -> None:
    """The job's arguments, on the store that is mounted."""
    values = {"store": {"type": "postgresql", "postgresql": {"existingSecret": "database"}}}
    [job] = (each for each in release.render(values) if each["kind"] == "Job")
    [found] = job["spec"]["template"]["spec"]["containers"]
    # Every variable but the Secret's own, which here names a file.
    variables = {each["name"]: each["value"] for each in found["env"] if "value" in each}
    url = "sqlite:////var/lib/watcher/watcher.db"
    process = container({}).start(*found["args"], **variables, DATABASE_URL=url)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert said.startswith("schema created at ")


def test_it_speaks_to_postgresql(container: Start) -> None:
    """The driver is in it; here is no server for it to reach."""
    url = "postgresql://watcher@127.0.0.1:1/watcher"
    process = container({}).start("migrate", DATABASE_URL=url)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "onnection refused" in said


def test_it_watches_as_the_rendered_pod_does(
    container: Start, release: Release, cluster: ControlPlane, tmp_path: Path
) -> None:
    """In a cluster, as the account of the release, from the pod's own files; and it ends when asked."""
    done = release.install({})
    assert done.returncode == 0, done.stderr
    objects = release.render({})
    [config] = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    [found] = next(
        each["spec"]["template"]["spec"]["containers"]
        for each in objects
        if each["kind"] == "Deployment"
    )
    folders = {"/etc/watcher": tmp_path / "config", ACCOUNT: tmp_path / "account"}
    for folder in folders.values():
        folder.mkdir()
    for name, text in config.items():
        (folders["/etc/watcher"] / name).write_text(text)
    accounts = f"/api/v1/namespaces/{release.namespace}/serviceaccounts"
    answer = cluster.admin.create(f"{accounts}/{release.fullname}/token", {})
    (folders[ACCOUNT] / "token").write_text(answer["status"]["token"])
    (folders[ACCOUNT] / "ca.crt").write_bytes(cluster.ca.read_bytes())
    (folders[ACCOUNT] / "namespace").write_text(release.namespace)

    [port] = free_ports(1)
    process = container(folders).start(
        *found["args"],
        **{each["name"]: each["value"] for each in found["env"]},
        KUBERNETES_SERVICE_HOST="127.0.0.1",
        KUBERNETES_SERVICE_PORT=str(cluster.port),
        WATCHER_WEB__ADDRESS=f"127.0.0.1:{port}",  # it has no network of its own
    )
    try:
        ready = found["readinessProbe"]["httpGet"]["path"]
        eventually(lambda: ask(port, ready)[0] == 200, instead=lambda: process.poll())
        eventually(lambda: ask(port, "/health/apiserver")[0] == 200)
        assert f'watcher_build_info{{version="{__version__}"}}' in ask(port, "/metrics")[1]["text"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        print(process.communicate()[0])
    assert (tmp_path / "store" / "watcher.db").exists()


def ask(port: int, path: str) -> tuple[int, dict[str, str]]:
    """Status and body; 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        return answer.status, json.loads(body) if body.startswith("{") else {"text": body}
    except OSError:
        return 0, {}
    finally:
        connection.close()
