"""The locks install on any day: also when each package has a newer release than the lock knows."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.packaging.index import ENTRY, NEWER, Index, pip

ROOT = Path(__file__).parents[2]
DEV, PRODUCT, BUILD = (f"requirements{each}.lock" for each in ("-dev", "", "-build"))
#: The one that Python 3.11 brings, and the newest.
PIPS = ("23.2.1", "26.3")


def environment(folder: Path, pip_version: str | None) -> None:
    """A virtual environment with that pip."""
    venv.create(folder, symlinks=True, with_pip=False)
    if pip_version:
        [packages] = folder.glob("lib/python*/site-packages")
        zipfile.ZipFile(pip(pip_version)).extractall(packages)
        (folder / "bin" / "pip").write_text(f'#!/bin/sh\nexec {folder}/bin/python -m pip "$@"\n')
        (folder / "bin" / "pip").chmod(0o755)


def installed(folder: Path) -> dict[str, str]:
    """Name and version of each distribution in an environment."""
    [packages] = folder.glob("lib/python*/site-packages")
    return {canonical(each.name): each.version for each in distributions(path=[str(packages)])}


def locked(lock: str) -> dict[str, str]:
    """The same of a lock."""
    found = ENTRY.finditer((ROOT / lock).read_text())
    return {canonical(each["name"]): each["version"] for each in found}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def index(tmp_path: Path) -> Index:
    # The project itself is really built, so what builds it is whole.
    return Index(tmp_path / "index", whole=locked(BUILD))


@pytest.fixture
def checkout(tmp_path: Path, index: Index) -> Path:
    """What an installation needs of one, with locks of the same shape for the index's packages."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "watcher", folder / "watcher", ignore=lambda *_: ["__pycache__"])
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for lock in (DEV, PRODUCT, BUILD):
        (folder / lock).write_text(index.lock((ROOT / lock).read_text()))
    return folder


def run(command: list[str], folder: Path, index: Index) -> subprocess.CompletedProcess[str]:
    """With no other index than that one."""
    env = {"PATH": os.environ["PATH"], **index.variables}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False
    )


def assert_installed(environment: Path, lock: str) -> None:
    """Nothing but what the lock names, at the lock's versions, and the product."""
    found = installed(environment)
    found.pop("pip", None)
    assert found.pop("deployment-watcher")
    assert found.items() <= locked(lock).items()


@pytest.mark.parametrize("version", PIPS)
def test_make_installs_the_lock(version: str, checkout: Path, index: Index) -> None:
    environment(checkout / ".venv", version)
    done = run(["make", "install", f"PYTHON={sys.executable}"], checkout, index)
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(checkout / ".venv")["pip"] == version
    assert_installed(checkout / ".venv", DEV)


@pytest.mark.parametrize("version", PIPS)
def test_the_image_installs_its_locks(
    version: str, checkout: Path, tmp_path: Path, index: Index
) -> None:
    """By the commands of the Dockerfile, in other folders."""
    environment(tmp_path / "build", version)
    environment(tmp_path / "watcher", None)
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1]
    commands = re.findall(r"^RUN ((?:.*\\\n)*.*)$", stage, re.MULTILINE)
    for command in commands:
        for path, ours in (("/opt/watcher", "watcher"), ("/build", "build"), ("/dist", "dist")):
            command = re.sub(rf"(?<!\S){path}\b", str(tmp_path / ours), command)
        if "-m venv" not in command:  # they are there already, with the pip that is tried
            done = run(["sh", "-ec", command], checkout, index)
            assert done.returncode == 0, done.stdout + done.stderr
    assert len(commands) == 3
    assert_installed(tmp_path / "watcher", PRODUCT)


def test_a_lock_that_lacks_a_package_is_told(checkout: Path, index: Index) -> None:
    """What the resolver did is proved after it: nothing is ready that would fail later."""
    lock = checkout / DEV
    lock.write_text(re.sub(r"^iniconfig==.*\n", "", lock.read_text(), flags=re.MULTILINE))
    environment(checkout / ".venv", PIPS[-1])
    done = run(["make", "install", f"PYTHON={sys.executable}"], checkout, index)
    assert done.returncode != 0
    assert "requires iniconfig, which is not installed" in done.stdout
    assert not (checkout / ".venv" / ".ready").exists()


def test_a_resolver_would_ask_for_what_the_lock_does_not_know(checkout: Path, index: Index) -> None:
    """Why the commands have --no-deps: so the index above would break them without it."""
    environment(checkout / ".venv", PIPS[0])
    makefile = checkout / "Makefile"
    makefile.write_text(
        makefile.read_text().replace("--no-deps --require-hashes", "--require-hashes")
    )
    done = run(["make", "install", f"PYTHON={sys.executable}"], checkout, index)
    assert done.returncode != 0
    assert f"coverage-{NEWER}" in done.stderr  # pytest-cov asks for coverage[toml]
