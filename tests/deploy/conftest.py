"""A control plane with accounts, on which charts install for real; and the tools for that."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.controlplane import binaries
from tests.controlplane.binaries import ControlPlaneUnavailable
from tests.controlplane.client import Client
from tests.controlplane.plane import ControlPlane, StartError
from tests.deploy import image, tools
from tests.deploy.node import Node
from tests.deploy.release import Release
from tests.parts import leave_out, say, without
from tests.postgres import postgres  # noqa: F401 - a fixture

HERE = Path(__file__).parent
PART, IMAGE = "controlplane", "image"
IMAGE_TESTS = HERE / "test_image.py"
UNAVAILABLE = pytest.StashKey[ControlPlaneUnavailable | image.ImageUnavailable]()
RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if without(PART):
        why = f"WITHOUT={PART}: {{count}} tests of chart and manifests are left out"
        leave_out(config, items, lambda path: path.is_relative_to(HERE), why)
    elif any(item.path == IMAGE_TESTS for item in items):
        left_out = f"WITHOUT={IMAGE}" if without(IMAGE) else ""
        if reason := left_out or image.why_not(lambda line: say(config, line)):
            why = f"{reason}: {{count}} tests of the image are left out"
            leave_out(config, items, lambda path: path == IMAGE_TESTS, why)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test, whose time limit knows nothing of compilers."""
    if session.config.option.collectonly:
        return

    def tell(line: str) -> None:
        say(session.config, line)

    files = {item.path for item in session.items}
    try:
        if any(path.is_relative_to(HERE) for path in files):
            binaries.locate(tell)
            tools.locate(tell)
        if IMAGE_TESTS in files:
            image.build(tell)
    except (ControlPlaneUnavailable, image.ImageUnavailable) as error:
        session.config.stash[UNAVAILABLE] = error  # the failure of every test that needs it


@pytest.fixture(scope="session")
def commands(pytestconfig: pytest.Config) -> Mapping[str, Path]:
    """Paths of helm, helm3, kubectl and actionlint."""
    unavailable = pytestconfig.stash.get(UNAVAILABLE, None)
    if isinstance(unavailable, ControlPlaneUnavailable):
        pytest.fail(str(unavailable), pytrace=False)
    return tools.locate()


@pytest.fixture(scope="session")
def built(pytestconfig: pytest.Config) -> None:
    """The image, of the working tree as it is."""
    if unavailable := pytestconfig.stash.get(UNAVAILABLE, None):
        pytest.fail(str(unavailable), pytrace=False)


@pytest.fixture
def offline(commands: Mapping[str, Path], tmp_path: Path) -> Release:
    """A release that is only rendered: nobody is asked."""
    return Release(commands, tmp_path / "kubeconfig", "default", tmp_path)


@pytest.fixture
def helm3(commands: Mapping[str, Path], tmp_path: Path) -> Release:
    """The same by Helm 3."""
    tools = {**commands, "helm": commands["helm3"]}
    return Release(tools, tmp_path / "kubeconfig", "default", tmp_path)


@pytest.fixture(scope="session")
def cluster(commands: Mapping[str, Path]) -> Iterator[ControlPlane]:
    started = ControlPlane(accounts=True, kubelet=Node)
    try:
        started.start()
    except StartError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        _define_monitoring(started.admin)
        yield started
    finally:
        started.stop()


@pytest.fixture
def node(cluster: ControlPlane) -> Node:
    assert isinstance(cluster.kubelet, Node)
    return cluster.kubelet


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[str]:
    """A namespace in which only restricted pods may run."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    labels = {"metadata": {"name": name, "labels": RESTRICTED}}
    cluster.admin.create("/api/v1/namespaces", labels)
    # The account of pods that name none comes from a controller.
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    cluster.admin.wait_for(accounts, lambda found: bool(found["items"]))
    yield name
    cluster.admin.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def release(
    commands: Mapping[str, Path], cluster: ControlPlane, namespace: str, tmp_path: Path
) -> Release:
    """A release that is yet to be installed, in a namespace of its own."""
    kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig", "admin")
    return Release(commands, kubeconfig, namespace, tmp_path)


def _define_monitoring(admin: Client) -> None:
    """The Prometheus operator's kinds, as far as the API server has to know them."""
    for name, plural in (
        ("ServiceMonitor", "servicemonitors"),
        ("PrometheusRule", "prometheusrules"),
    ):
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True}
        admin.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.monitoring.coreos.com"},
                "spec": {
                    "group": "monitoring.coreos.com",
                    "scope": "Namespaced",
                    "names": {"kind": name, "plural": plural},
                    "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
                },
            }
        )
