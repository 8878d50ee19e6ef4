"""The workflows, and the scripts that they run."""

import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.controlplane.client import Json
from tests.deploy.tools import attempt, call

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI = ROOT / ".ci"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def workflow(path: Path) -> Json:
    found: Json = yaml.safe_load(path.read_text())
    return found


def steps(path: Path) -> list[Json]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.fixture
def variables(commands: Mapping[str, Path], tmp_path: Path) -> dict[str, str]:
    path = f"{commands['helm'].parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path)}


def test_actionlint(commands: Mapping[str, Path], variables: dict[str, str]) -> None:
    assert len(WORKFLOWS) >= 4
    assert call(commands["actionlint"], *WORKFLOWS, **variables) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_is_trusted_by_a_name_that_can_move(path: Path) -> None:
    """Actions are pinned by commit, with the version beside it for people and Dependabot."""
    used = re.findall(r"uses: *(.+)", path.read_text())
    assert used
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_least_permissions(path: Path) -> None:
    """Reading is the default; only a job that publishes may write, and only packages."""
    found = workflow(path)
    assert found["permissions"] == {"contents": "read"}
    writing = [job.get("permissions", {}) for job in found["jobs"].values()]
    assert all(each in ({}, {"contents": "read", "packages": "write"}) for each in writing)
    checkouts = [step for step in steps(path) if "checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert all("timeout-minutes" in job for job in found["jobs"].values())


def test_what_the_workflows_run_is_here() -> None:
    """Each script that they name is there and can be executed."""
    run = "\n".join(step.get("run", "") for path in WORKFLOWS for step in steps(path))
    scripts = set(re.findall(r"(?:\.ci|deploy)/[\w/-]+", run))
    assert scripts == {".ci/run", ".ci/chart", ".ci/image-names", "deploy/e2e/run"}
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_the_chart_is_linted(variables: dict[str, str]) -> None:
    assert "0 chart(s) failed" in call(CI / "chart", "lint", **variables)


def test_a_published_chart_names_its_image(variables: dict[str, str], tmp_path: Path) -> None:
    """So that `helm install` of it needs no value at all."""
    call(CI / "chart", "package", "ghcr.io/owner/watcher", "1.2.3", tmp_path, **variables)
    package = tmp_path / "deployment-watcher-1.2.3.tgz"
    with tarfile.open(package) as tar:
        names = {Path(name).parts[1] for name in tar.getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "templates", "files"} <= names
    rendered = call("helm", "template", "watcher", package, **variables)
    assert 'image: "ghcr.io/owner/watcher:1.2.3"' in rendered


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        pytest.param("refs/heads/main", ["main"], id="main"),
        pytest.param("refs/tags/v1.2.3", ["1.2.3", "1.2"], id="release"),
        pytest.param("refs/tags/v1.2.3-rc.1", ["1.2.3-rc.1"], id="candidate"),
        pytest.param("refs/pull/7/merge", [], id="pull request"),
    ],
)
def test_names_of_an_image(ref: str, expected: list[str], variables: dict[str, str]) -> None:
    """Always the commit; a release is also the newest of its minor version."""
    about = {"REF": ref, "REPOSITORY": "Owner/Name", "REVISION": COMMIT}
    said = call("bash", "-c", f"cd {ROOT} && .ci/image-names", **variables, **about)
    tags = re.findall(r"^ghcr\.io/owner/name:(\S+)$", said, re.MULTILINE)
    assert tags == ["sha-0123456789ab", *expected]
    assert f"org.opencontainers.image.revision={COMMIT}" in said


def test_a_wrong_call_is_told(variables: dict[str, str]) -> None:
    assert attempt(CI / "chart", "publish", **variables).returncode == 2
