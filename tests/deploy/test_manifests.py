"""The plain manifests: an API server takes them, they run, and they are what the chart renders."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.controlplane.client import Json
from tests.controlplane.objects import settled
from tests.controlplane.plane import ControlPlane
from tests.controlplane.receivers import eventually
from tests.deploy.node import Node, PodProcess
from tests.deploy.release import CHART, Release, documents
from tests.deploy.tools import call
from tests.postgres import Postgres
from watcher import __version__

DEPLOY = CHART.parent
BASE, REPLICATED = DEPLOY / "manifests", DEPLOY / "postgresql"
NAMESPACE = NAME = "deployment-watcher"
APP = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"


class Kubectl:
    """kubectl as an administrator."""

    def __init__(self, path: Path, kubeconfig: Path, home: Path) -> None:
        self._path = path
        self._variables = {"KUBECONFIG": str(kubeconfig), "HOME": str(home)}

    def __call__(self, *arguments: str | Path) -> str:
        return call(self._path, *arguments, **self._variables)


@pytest.fixture
def kubectl(commands: Mapping[str, Path], cluster: ControlPlane, tmp_path: Path) -> Kubectl:
    kubeconfig = cluster.write_kubeconfig(tmp_path / "admin", "admin")
    return Kubectl(commands["kubectl"], kubeconfig, tmp_path)


@pytest.fixture(scope="module")
def home(
    cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], list[PodProcess]]]:
    """Gives the processes of the pods in the manifests' own namespace."""
    node = cluster.kubelet
    assert isinstance(node, Node)
    folder = tmp_path_factory.mktemp("manifests")
    node.run_pods_of(NAMESPACE, folder, cluster.write_kubeconfig(folder / "where", "admin"))
    yield lambda: node.of(NAMESPACE)
    print(node.logs(NAMESPACE))


def kinds(objects: list[Json]) -> list[tuple[str, str]]:
    return sorted((each["kind"], each["metadata"]["name"]) for each in objects)


def test_a_folder_of_files_is_the_same_as_its_kustomization(kubectl: Kubectl) -> None:
    """`kubectl apply -f` and `-k` do the same, and neither applies an example."""
    files = [each for path in sorted(BASE.glob("*.yaml")) for each in documents(path.read_text())]
    assert kinds(files) == kinds(documents(kubectl("kustomize", BASE)))


def test_every_example_is_taken(kubectl: Kubectl, home: object) -> None:
    """By the API server as they are, the namespace first."""
    kubectl("apply", "--filename", BASE / "00-namespace.yaml")
    how = ("--dry-run=server", "--warnings-as-errors")
    for folder in (BASE, REPLICATED):
        kubectl("apply", *how, "--kustomize", folder)
    for files in (BASE / "examples", REPLICATED / "migrate.yaml"):
        kubectl("apply", *how, "--filename", files)


def test_one_command_and_it_runs(
    kubectl: Kubectl,
    home: Callable[[], list[PodProcess]],
    cluster: ControlPlane,
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    """First on its own volume; later as two replicas on PostgreSQL, once the schema is there.

    What is configured in the base stays: the cluster keeps its name.
    """
    edited = shutil.copytree(DEPLOY, tmp_path / "deploy")
    config = edited / "manifests" / "config.yaml"
    config.write_text(config.read_text().replace("name: default", "name: prod-eu"))

    kubectl("apply", "--kustomize", edited / "manifests")
    cluster.admin.wait_for(APP, settled, within=30)
    [process] = home()
    assert process.page("/readyz")["status"] == "ok"
    assert followed(process) == {"prod-eu"}

    url = f"--from-literal=DATABASE_URL={postgres.database()}"
    kubectl("--namespace", NAMESPACE, "create", "secret", "generic", NAME, url)
    kubectl("apply", "--filename", REPLICATED / "migrate.yaml")
    done = ("wait", "--for=condition=complete", "--timeout=30s", f"job/{NAME}-migrate")
    kubectl("--namespace", NAMESPACE, *done)
    kubectl("apply", "--kustomize", edited / "postgresql")
    found = cluster.admin.wait_for(
        APP, lambda each: settled(each) and each["status"]["replicas"] == 2, within=30
    )
    assert found["spec"]["strategy"]["type"] == "RollingUpdate"

    def roles() -> list[str]:
        """Of those that are there; the one before them may still be going."""
        running = [each for each in home() if each.is_ready]
        return sorted(each.page("/readyz")["role"] for each in running)

    eventually(lambda: roles() == ["standby", "writer"], instead=roles)
    assert [followed(each) for each in home() if each.is_ready] == [{"prod-eu"}] * 2


def followed(process: PodProcess) -> set[str]:
    """The names of the clusters that it sees Deployments of."""
    return {each["cluster"] for each in process.page("/health/deployments")["deployments"]}


def test_they_are_what_the_chart_renders(release: Release) -> None:
    """Rights, probes, security and resources of the two do not drift apart."""
    manifests = [each for path in BASE.glob("*.yaml") for each in documents(path.read_text())]
    rendered = release.render({})
    for part in ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"):
        assert pod(manifests)[part] == pod(rendered)[part], part
    (ours,), (theirs,) = pod(manifests)["containers"], pod(rendered)["containers"]
    parts = ("args", "startupProbe", "livenessProbe", "readinessProbe", "resources")
    for part in (*parts, "securityContext", "ports", "volumeMounts"):
        assert ours[part] == theirs[part], part
    assert one(manifests, "ClusterRole")["rules"] == one(rendered, "ClusterRole")["rules"]
    assert ours["image"].endswith(f":{__version__}")

    [job] = documents((REPLICATED / "migrate.yaml").read_text())
    [migration] = job["spec"]["template"]["spec"]["containers"]
    for part in ("image", "securityContext"):
        assert migration[part] == ours[part], part
    chart = {"store": {"type": "postgresql", "postgresql": {"existingSecret": "database"}}}
    [hook] = pod(release.render(chart), "Job")["containers"]
    assert (migration["args"], migration["resources"]) == (hook["args"], hook["resources"])


def test_the_rights_of_causes_are_the_charts(release: Release) -> None:
    """Those that are off by default, in an example here and behind a value there."""
    example = documents((BASE / "examples" / "rbac-causes.yaml").read_text())
    rendered = release.render({"rbac": {"causes": True}})
    [role] = (
        each
        for each in rendered
        if each["kind"] == "ClusterRole" and each["metadata"]["name"].endswith("-causes")
    )
    assert one(example, "ClusterRole")["rules"] == role["rules"]


def one(objects: list[Json], kind: str) -> Json:
    [found] = (each for each in objects if each["kind"] == kind)
    return found


def pod(objects: list[Json], kind: str = "Deployment") -> Json:
    found: Json = one(objects, kind)["spec"]["template"]["spec"]
    return found
