"""What a hand changes on the cluster meets the next upgrade: as docs/install.md says, with Helm 4 and 3."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.controlplane.client import Json
from tests.controlplane.plane import ControlPlane
from tests.deploy.release import Release

VALUES: Json = {"store": {"sqlite": {"persistent": False}}}
GRACE = ".spec.template.spec.terminationGracePeriodSeconds"
REPLICAS = ".spec.replicas"


@pytest.fixture
def by_helm_3(
    commands: Mapping[str, Path], cluster: ControlPlane, namespace: str, tmp_path: Path
) -> Release:
    kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig3", "admin")
    return Release({**commands, "helm": commands["helm3"]}, kubeconfig, namespace, tmp_path)


def has(release: Release, field: str) -> str:
    return release.kubectl("get", "deployment", release.fullname, f"--output=jsonpath={{{field}}}")


def edit(release: Release) -> None:
    """As `kubectl edit` does, by its name."""
    change = '{"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 99}}}}'
    by = "--field-manager=kubectl-edit"
    release.kubectl("patch", "deployment", release.fullname, by, "--patch", change)


def scale(release: Release, replicas: int) -> None:
    release.kubectl("scale", "deployment", release.fullname, f"--replicas={replicas}")


def changed(at: str) -> Json:
    """The same release with a change of its own."""
    return {**VALUES, "podAnnotations": {"changed": at}}


def test_helm_4_refuses_to_take_back_an_edit_until_it_is_told_to(release: Release) -> None:
    assert release.install(VALUES).returncode == 0
    edit(release)
    for refused in (release.upgrade(changed("a")), release.rolled_back()):
        assert refused.returncode
        assert 'conflict with "kubectl-edit"' in refused.stderr
        assert GRACE in refused.stderr
    assert has(release, GRACE) == "99"
    assert release.upgrade(changed("b"), "--force-conflicts").returncode == 0
    assert has(release, GRACE) == "30"
    assert release.upgrade(changed("c")).returncode == 0, "once is enough"


def test_helm_3_takes_an_edit_back_without_a_word(by_helm_3: Release) -> None:
    assert by_helm_3.install(VALUES).returncode == 0
    edit(by_helm_3)
    assert by_helm_3.upgrade(changed("a")).returncode == 0
    assert has(by_helm_3, GRACE) == "30"


def test_an_upgrade_sets_the_number_of_replicas_back(release: Release, by_helm_3: Release) -> None:
    """Helm 4 asks first, but for zero, of which the API server keeps no owner."""
    assert release.install(VALUES).returncode == 0
    scale(release, 3)
    refused = release.upgrade(changed("a"))
    assert 'conflict with "kubectl" with subresource "scale"' in refused.stderr
    assert (refused.returncode, has(release, REPLICAS)) == (1, "3")
    assert release.upgrade(changed("b"), "--force-conflicts").returncode == 0
    assert has(release, REPLICAS) == "1"
    scale(release, 0)
    assert release.upgrade(changed("c")).returncode == 0
    assert has(release, REPLICAS) == "1"
    release.helm("uninstall", release.name)
    assert by_helm_3.install(VALUES).returncode == 0
    scale(by_helm_3, 3)
    assert by_helm_3.upgrade(changed("d")).returncode == 0
    assert has(by_helm_3, REPLICAS) == "1"


@pytest.mark.parametrize("helm", ["release", "by_helm_3"])
def test_a_number_left_to_others_stays(helm: str, request: pytest.FixtureRequest) -> None:
    release: Release = request.getfixturevalue(helm)
    own = {"replicaCount": None}
    assert release.install(VALUES | own).returncode == 0
    assert has(release, REPLICAS) == "1"
    for replicas in (3, 0, 2):
        scale(release, replicas)
        assert release.upgrade(changed(f"to {replicas}") | own).returncode == 0
        assert has(release, REPLICAS) == str(replicas)
