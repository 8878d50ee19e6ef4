"""One control plane for the whole run, a fresh namespace for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.controlplane.binaries import ControlPlaneUnavailable, locate
from tests.controlplane.client import Client, Json
from tests.controlplane.kubelet import Kubelet
from tests.controlplane.objects import deployments
from tests.controlplane.plane import ControlPlane, StartError
from tests.controlplane.receivers import receivers
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess
from tests.parts import leave_out, say, without
from watcher.testing.slack import CHANNEL

HERE = Path(__file__).parent
MANIFESTS = HERE.parent.parent / "deploy" / "manifests"
RBAC = "rbac.authorization.k8s.io/"
WITHOUT = "controlplane"
UNAVAILABLE = pytest.StashKey[ControlPlaneUnavailable]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if without(WITHOUT):
        why = f"WITHOUT={WITHOUT}: {{count}} tests against a real API server are left out"
        leave_out(config, items, lambda path: path.is_relative_to(HERE), why)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test, whose time limit knows nothing of compilers."""
    ours = any(item.path.is_relative_to(HERE) for item in session.items)
    if ours and not session.config.option.collectonly:
        try:
            locate(lambda line: say(session.config, line))
        except ControlPlaneUnavailable as error:  # the failure of every test that needs it
            session.config.stash[UNAVAILABLE] = error


@pytest.fixture(scope="session")
def plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    if unavailable := pytestconfig.stash.get(UNAVAILABLE, None):
        pytest.fail(str(unavailable), pytrace=False)
    started = ControlPlane()
    try:
        started.start()
    except StartError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        started.admin.apply(*shipped_access())
        yield started
    finally:
        started.stop()


@pytest.fixture
def admin(plane: ControlPlane) -> Client:
    return plane.admin


@pytest.fixture
def kubelet(plane: ControlPlane) -> Kubelet:
    return plane.kubelet


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    # A namespace takes five seconds and more to go. Its Deployments go at once, and with them all
    # that the next test's watcher could see.
    plane.admin.delete(deployments(name))
    plane.admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def told(plane: ControlPlane, tmp_path: Path) -> Iterator[Told]:
    """A watcher that is yet to be started, under the shipped RBAC rules, and who is told."""
    kubeconfig = plane.write_kubeconfig(tmp_path / "kubeconfig")
    with receivers() as (slack, hook):
        (tmp_path / "slack-token").write_text(slack.token)
        (tmp_path / "webhook-secret").write_text(hook.secret)
        oncall = {
            "name": "oncall",
            "type": "slack",
            "token": {"file": str(tmp_path / "slack-token")},
            "channel": CHANNEL,
            "api_url": slack.api_url,
        }
        machines = {
            "name": "machines",
            "type": "webhook",
            "url": hook.url,
            "secrets": [{"file": str(tmp_path / "webhook-secret")}],
        }
        watcher = WatcherProcess(
            tmp_path,
            {
                "clusters": [{"name": "test", "kubeconfig": str(kubeconfig)}],
                "health": {
                    "degraded_for": "2s",
                    "none_available_for": "1s",
                    "recovered_for": "2s",
                    "no_progress_for": "1m",
                },
                "heartbeat": {"interval": "1s", "timeout": "3s", "unauthorized_for": "1s"},
                "sinks": [oncall, machines],
            },
        )
        try:
            yield Told(watcher, slack, hook)
        finally:
            watcher.stop()


@pytest.fixture
def watcher(told: Told) -> WatcherProcess:
    return told.watcher


def shipped_access() -> list[Json]:
    """The namespace, the ServiceAccount and the RBAC rules as they are shipped, in that order."""
    documents = [
        document
        for path in sorted(MANIFESTS.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]
    wanted = ("Namespace", "ServiceAccount")
    access = [each for each in documents if each["kind"] in wanted]
    access += [each for each in documents if each["apiVersion"].startswith(RBAC)]
    return sorted(access, key=lambda each: each["kind"] != "Namespace")
