"""One Helm release of the chart: rendered, installed, upgraded, tested, uninstalled."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.controlplane.client import Json
from tests.deploy.tools import attempt, call

CHART = Path(__file__).parents[2] / "deploy" / "chart"


class Release:
    """Named `demo`, in one namespace; its objects are called `demo-deployment-watcher`."""

    name = "demo"
    fullname = "demo-deployment-watcher"

    def __init__(
        self, commands: Mapping[str, Path], kubeconfig: Path, namespace: str, folder: Path
    ) -> None:
        self.namespace = namespace
        self._helm = commands["helm"]
        self._kubectl = commands["kubectl"]
        self._folder = folder
        self._variables = {"KUBECONFIG": str(kubeconfig), "HOME": str(folder)}

    def render(self, values: Json, *flags: str) -> list[Json]:
        """Every object that an installation with these values would make, the hooks too."""
        return documents(call(*self._command("template", values, *flags), **self._variables))

    def install(self, values: Json, *flags: str) -> subprocess.CompletedProcess[str]:
        return attempt(*self._command("install", values, *flags), **self._variables)

    def upgrade(self, values: Json, *flags: str) -> subprocess.CompletedProcess[str]:
        return attempt(*self._command("upgrade", values, *flags), **self._variables)

    def rolled_back(self, revision: int = 1) -> subprocess.CompletedProcess[str]:
        place = ("--namespace", self.namespace)
        return attempt(self._helm, "rollback", self.name, str(revision), *place, **self._variables)

    def helm(self, *arguments: str) -> str:
        """Any other command of Helm's, in the release's namespace."""
        return call(self._helm, "--namespace", self.namespace, *arguments, **self._variables)

    def kubectl(self, *arguments: str) -> str:
        return call(self._kubectl, "--namespace", self.namespace, *arguments, **self._variables)

    def refused(self, values: Json) -> str:
        """What Helm says of values that it does not take."""
        done = attempt(*self._command("template", values), **self._variables)
        assert done.returncode, done.stdout
        return done.stderr

    def accepted(self, objects: list[Json]) -> list[str]:
        """The names of the objects: the API server would take each as it is, without a warning."""
        file = self._folder / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        asked = ("apply", "--server-side", "--dry-run=server", "--warnings-as-errors")
        how = ("--output=name", f"--filename={file}")
        return call(self._kubectl, *asked, *how, **self._variables).split()

    def _command(self, verb: str, values: Json, *flags: str) -> tuple[str | Path, ...]:
        file = self._folder / "values.json"
        file.write_text(json.dumps(values))
        place = ("--namespace", self.namespace, "--values", file)
        return (self._helm, verb, self.name, CHART, *place, *flags)


def documents(text: str) -> list[Json]:
    return [document for document in yaml.safe_load_all(text) if document]
