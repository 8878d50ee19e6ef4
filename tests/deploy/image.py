"""The image, built and run without a container engine: buildah, debootstrap, and root to use them.

No registry is asked. The base is Debian with its own Python instead of the one that the Dockerfile
names, and the wheels are fetched before, so that the build has no network.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tests.controlplane.binaries import ControlPlaneUnavailable, cache, locked, run
from tests.controlplane.client import Json

ROOT = Path(__file__).parents[2]
PROGRAMS = ("buildah", "debootstrap")
BASE = "localhost/deployment-watcher-base:bookworm"
IMAGE = "localhost/deployment-watcher:test"
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-build.lock")
DEBIAN = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm")
PYTHON = "3.11"  # of that Debian
GLIBC = range(17, 37)
USER = 65532
MANY_LAYERS = 150


class ImageUnavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """The image could not be built."""


def why_not(say: Callable[[str], None] = print) -> str:
    """What keeps this machine from building it, after an attempt to install what is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "building the image takes root on Linux"
    if _missing() and shutil.which("apt-get"):
        say(f"installing {' and '.join(_missing())}")
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_missing()]
        with suppress(subprocess.TimeoutExpired):  # it is not to be had then
            for command in (["apt-get", "update", "--quiet"], install):
                subprocess.run(command, capture_output=True, timeout=300, check=False)
    return f"{' and '.join(_missing())} cannot be installed" if _missing() else ""


def build(say: Callable[[str], None] = print) -> None:
    """Build it from the working tree; layers that nothing has changed are kept from the last time.

    Two minutes the first time, then ten seconds. Raises ImageUnavailable, which says why.
    """
    try:
        _build(say)
    except ControlPlaneUnavailable as error:
        told = f"no image: {error.why} (WITHOUT=image leaves its tests out)"
        raise ImageUnavailable(told) from None


def _build(say: Callable[[str], None]) -> None:
    home = cache().parent / "image"
    with locked(home / "lock"):
        if len(buildah("images", "--all", "--quiet").split()) > MANY_LAYERS:
            shutil.rmtree(home / "storage")
        if BASE not in buildah("images", "--format={{.Name}}:{{.Tag}}"):
            say("making the base of the image: a minute")
            _make_base(home)
        wheels = _wheels(home, say)
        buildah(
            *(
                "build",
                "--quiet",
                "--layers",
                "--isolation=chroot",
                f"--volume={wheels}:/wheels:ro",
            ),
            *(f"--build-arg=BASE_IMAGE={BASE}", "--build-arg=PIP_NO_INDEX=1"),
            *("--build-arg=PIP_FIND_LINKS=/wheels", f"--tag={IMAGE}", str(ROOT)),
        )


def buildah(*arguments: str) -> str:
    home = cache().parent / "image"
    places = (f"--root={home / 'storage'}", f"--runroot={home / 'run'}")
    return run(["buildah", *places, *arguments], ROOT)


def settings() -> Json:
    """User, entrypoint, labels and the like."""
    found: Json = json.loads(buildah("inspect", "--type=image", IMAGE))["OCIv1"]["config"]
    return found


class Container:
    """A container's file system, read-only but for what is mounted."""

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._settings = settings()
        self._mounts = mounts
        self._id = buildah("from", IMAGE)
        self.root = Path(buildah("mount", self._id))
        for path in ("/proc", "/dev", *mounts):
            self._inside(path).mkdir(parents=True, exist_ok=True)
        for folder in mounts.values():
            for each in (folder, *folder.rglob("*")):
                os.chown(each, USER, USER)

    def remove(self) -> None:
        buildah("umount", self._id)
        buildah("rm", self._id)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Run the entrypoint as the image's user, in a mount namespace of its own."""
        script = [
            'mount --bind "$ROOT" "$ROOT"',
            'mount --rbind /dev "$ROOT/dev"',
            'mount -t proc proc "$ROOT/proc"',
            *(
                f'mount --bind "{self._mounts[path]}" "{self._inside(path)}"'
                for path in self._mounts
            ),
            'mount -o remount,bind,ro "$ROOT"',
            f'exec chroot --userspec={self._settings["User"]} "$ROOT" "$@"',
        ]
        env = dict(each.split("=", 1) for each in self._settings["Env"])
        command = [*self._settings["Entrypoint"], *(arguments or self._settings["Cmd"])]
        inside = ["env", "--ignore-environment", f"--chdir={self._settings['WorkingDir']}"]
        inside += [f"{name}={value}" for name, value in (env | variables).items()]
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", "\n".join(script), "sh", *inside, *command],
            env={"PATH": os.environ["PATH"], "ROOT": str(self.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _inside(self, path: str) -> Path:
        # /var/run is a link to /run, an absolute one.
        return self.root / path.removeprefix("/").replace("var/run/", "run/")


def _missing() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _make_base(home: Path) -> None:
    folder = home / "base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        run(["debootstrap", *DEBIAN, str(folder / "root")], folder)
        run(["tar", "--create", "--file=root.tar", "--directory=root", "."], folder)
        (folder / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        (folder / ".dockerignore").write_text("root\n")
        buildah("build", "--quiet", f"--tag={BASE}", str(folder))
    finally:
        shutil.rmtree(folder)


def _wheels(home: Path, say: Callable[[str], None]) -> Path:
    """A folder of all that the image installs, by the hashes of the lock files."""
    key = hashlib.sha256(b"".join(lock.read_bytes() for lock in LOCKS)).hexdigest()[:12]
    folder = home / f"wheels-{key}"
    if not folder.is_dir():
        say("fetching the wheels of the image")
        partial = folder.with_suffix(".partial")
        machine = os.uname().machine
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        only = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
        only += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
        only += [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
        locks = [f"--requirement={lock}" for lock in LOCKS]
        run([*pip, *only, f"--platform=manylinux2014_{machine}", *locks, f"--dest={partial}"])
        partial.rename(folder)
    return folder
