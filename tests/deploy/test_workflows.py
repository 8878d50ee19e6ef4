"""The workflows, and the scripts that they run."""

import hashlib
import os
import re
import subprocess
import tarfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
    """Reading is the default; only a job that publishes may write, and only packages.

    Only one that signs may say who it is, and it runs for no pull request.
    """
    found = workflow(path)
    assert found["permissions"] == {"contents": "read"}
    writing = [job.get("permissions", {}) for job in found["jobs"].values()]
    publishes = {"contents": "read", "packages": "write"}
    signs = {**publishes, "id-token": "write"}
    assert all(each in ({}, publishes, signs) for each in writing)
    for job in found["jobs"].values():
        text = yaml.safe_dump(job)
        assert ("cosign sign" in text) == (job.get("permissions") == signs)
        if job.get("permissions") == signs:
            assert job["if"] in (
                "startsWith(github.ref, 'refs/tags/v')",
                "github.event_name == 'push'",
            )
    checkouts = [step for step in steps(path) if "checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert all("timeout-minutes" in job for job in found["jobs"].values())


def test_what_the_workflows_run_is_here() -> None:
    """Each script that they name is there and can be executed."""
    run = "\n".join(step.get("run", "") for path in WORKFLOWS for step in steps(path))
    scripts = set(re.findall(r"(?:\.ci|deploy)/[\w/-]+", run))
    assert scripts == {".ci/run", ".ci/chart", ".ci/image-names", "deploy/e2e/run"}
    scripts.add(".ci/chart-metadata")  # which .ci/chart runs
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_the_chart_is_linted(variables: dict[str, str]) -> None:
    assert "0 chart(s) failed" in call(CI / "chart", "lint", **variables)


def test_a_published_chart_names_its_image(variables: dict[str, str], tmp_path: Path) -> None:
    """So that `helm install` of it needs no value at all."""
    package = packaged(variables, tmp_path)
    with tarfile.open(package) as tar:
        names = {Path(name).parts[1] for name in tar.getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "templates", "files"} <= names
    rendered = call("helm", "template", "watcher", package, **variables)
    assert 'image: "ghcr.io/owner/watcher:1.2.3"' in rendered


def packaged(variables: dict[str, str], folder: Path, version: str = "1.2.3") -> Path:
    about = ("ghcr.io/owner/watcher", version, "https://github.com/Owner/watcher")
    call(CI / "chart", "package", *about, folder, **variables)
    return folder / f"deployment-watcher-{version}.tgz"


@pytest.mark.parametrize(("version", "candidate"), [("1.2.3", False), ("1.2.3-rc.1", True)])
def test_a_published_chart_tells_artifact_hub_all_it_shows(
    variables: dict[str, str], tmp_path: Path, version: str, candidate: bool
) -> None:
    shown = yaml.safe_load(
        call("helm", "show", "chart", packaged(variables, tmp_path, version), **variables)
    )
    assert shown["home"] == "https://github.com/Owner/watcher"
    assert shown["sources"] == [shown["home"]]
    assert shown["maintainers"] == [{"name": "Owner", "url": "https://github.com/Owner"}]
    hub = {
        name.removeprefix("artifacthub.io/"): yaml.safe_load(value)
        for name, value in shown["annotations"].items()
    }
    assert hub.keys() == {
        "category", "license", "operator", "changes", "containsSecurityUpdates", "images", "links",
        "prerelease",
    }  # fmt: skip
    assert hub["prerelease"] is candidate
    assert [image["image"] for image in hub["images"]] == [f"ghcr.io/owner/watcher:{version}"]
    assert {link["name"] for link in hub["links"]} == {"source", "documentation", "support"}
    assert hub["changes"]
    assert all(each["kind"] in KINDS and each["description"] for each in hub["changes"])


KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}
LOG = """# Changelog

## [Unreleased]

### Added
- what is to come

## [1.2.3] - 2026-12-01

### Fixed
- `a`: one that
  takes [two](docs/x.md) lines

### Security
- "quoted": yes

## [1.2.2] - 2026-11-01
- an old one
"""


@pytest.mark.parametrize(
    ("version", "secure", "expected"),
    [
        pytest.param("1.2.3", True, [("fixed", "a: one that takes two lines"),
            ("security", '"quoted": yes')], id="its own part"),
        pytest.param("1.2.2", False, [("changed", "an old one")], id="without a heading"),
        pytest.param("1.3.0", False, [("added", "what is to come")], id="not in the log yet"),
    ],
)  # fmt: skip
def test_changes_come_from_the_changelog(
    version: str, secure: bool, expected: list[tuple[str, str]]
) -> None:
    told = subprocess.run(
        [CI / "chart-metadata", "ghcr.io/o/w", version, "https://github.com/o/w"],
        input=LOG, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = yaml.safe_load(f"annotations:\n{told.stdout}")["annotations"]
    changes = yaml.safe_load(found["artifacthub.io/changes"])
    assert [(each["kind"], each["description"]) for each in changes] == expected
    assert found["artifacthub.io/containsSecurityUpdates"] == str(secure).lower()


class Registry(BaseHTTPRequestHandler):
    """As much of an OCI registry as a push needs."""

    manifests: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_GET(self) -> None:
        """A manifest that was pushed by its digest gets its tag by being pushed again."""
        self._answer(200, self.manifests[self.path.rpartition("/")[2]])

    def do_POST(self) -> None:
        self._answer(202, Location=f"{self.path}upload")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if "/manifests/" in self.path:
            self.manifests[digest] = body
        self._answer(201, Location=self.path, Docker_Content_Digest=digest)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        kind = "application/vnd.oci.image.manifest.v1+json"
        about = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**headers, **about}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize("helm", ["helm", "helm3"])
def test_a_chart_is_pushed_and_named_by_its_digest(
    helm: str, variables: dict[str, str], commands: Mapping[str, Path], tmp_path: Path
) -> None:
    """What is signed is exactly what was pushed, whatever its tag comes to mean."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").symlink_to(commands[helm])
    env = variables | {"PATH": f"{tmp_path / 'bin'}:{variables['PATH']}"}
    packaged(env, tmp_path)
    Registry.manifests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}/owner/charts"
        told = call(CI / "chart", "push", tmp_path, place, "--plain-http", **env)
        server.shutdown()
    [digest] = Registry.manifests
    assert told == f"{place}/deployment-watcher@{digest}\n"


def test_a_push_that_fails_is_not_signed(variables: dict[str, str], tmp_path: Path) -> None:
    packaged(variables, tmp_path)
    push = (CI / "chart", "push", tmp_path, "127.0.0.1:9/owner/charts", "--plain-http")
    done = attempt(*push, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr


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
    done = attempt(CI / "chart", "publish", **variables)
    assert (done.returncode, "usage: " in done.stderr) == (2, True)
