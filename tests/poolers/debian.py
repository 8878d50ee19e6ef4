"""PgBouncer in the versions of two Debian releases, unpacked beside the control plane and not installed.

Each runs on the libraries of its own release, so that the machine's need not be as old or as new.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.controlplane.binaries import ControlPlaneUnavailable, cache, locked, run

RELEASES = {"1.18": "bookworm", "1.24": "trixie"}
"""One that knows nothing of prepared statements, and one that follows them."""
INSTALL_TIMEOUT = 300


class PoolerUnavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """PgBouncer is not to be had."""


def why_not() -> str:
    """What keeps this machine from unpacking it, after an attempt to install what is missing."""
    if all(_folder(release).is_dir() for release in RELEASES.values()):
        return ""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "unpacking Debian's PgBouncer takes root on Linux"
    if not shutil.which("debootstrap") and shutil.which("apt-get"):
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends"]
        with suppress(subprocess.TimeoutExpired):  # it is not to be had then
            for command in (["apt-get", "update", "--quiet"], [*install, "debootstrap"]):
                subprocess.run(command, capture_output=True, timeout=INSTALL_TIMEOUT, check=False)
    return "" if shutil.which("debootstrap") else "debootstrap cannot be installed"


def prepare(say: Callable[[str], None] = print) -> None:
    """Fetch what is not there yet, a minute. Raises PoolerUnavailable, which says why not."""
    try:
        for version, release in RELEASES.items():
            with locked(cache().parent / "pgbouncer" / "lock"):
                if not _folder(release).is_dir():
                    say(f"fetching PgBouncer {version}: half a minute")
                    _unpack(release)
    except ControlPlaneUnavailable as error:
        told = f"no PgBouncer: {error.why} (WITHOUT=pgbouncer leaves its tests out)"
        raise PoolerUnavailable(told) from None


def command(version: str) -> list[str]:
    """What starts it, before its own arguments."""
    root = _folder(RELEASES[version])
    loader = next(
        path for path in root.rglob("ld-linux*.so.*") if path.is_file() and not path.is_symlink()
    )
    folders = [str(root / place / loader.parent.name) for place in ("lib", "usr/lib")]
    program = root / "usr" / "sbin" / "pgbouncer"
    return [str(loader), "--library-path", ":".join(folders), str(program)]


def _folder(release: str) -> Path:
    return cache().parent / "pgbouncer" / release


def _unpack(release: str) -> None:
    target = _folder(release)
    partial, fetched = target.with_suffix(".partial"), target.with_suffix(".fetched")
    for folder in (partial, fetched):
        shutil.rmtree(folder, ignore_errors=True)
    wanted = ["--download-only", "--variant=minbase", "--include=pgbouncer"]
    run(["debootstrap", *wanted, release, str(fetched)], target.parent)
    for package in (fetched / "var/cache/apt/archives").glob("*.deb"):
        if package.name.startswith(("lib", "pgbouncer", "zlib1g")):
            run(["dpkg-deb", "--extract", str(package), str(partial)], target.parent)
    shutil.rmtree(fetched)
    partial.rename(target)
