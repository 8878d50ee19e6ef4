"""A package index on disk that has gone on since the lock was written, and the pips that ask it."""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tests.controlplane.binaries import cache, locked

HERE = Path(__file__).parent
PIPS = HERE / "pips.txt"
NEWER = "99999"
"""A release of every package that no lock has heard of."""
ENTRY = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<marker>.*?) \\\n(?:.*\\\n)*.*", re.M)


def pip(version: str) -> Path:
    """The wheel of that pip, fetched once by its hash."""
    [line] = [each for each in PIPS.read_text().splitlines() if each.startswith(f"pip=={version} ")]
    digest = line.rpartition(":")[2]
    folder = cache().parent / "pip"
    with locked(folder / "lock"):
        wheel = folder / f"pip-{version}-py3-none-any.whl"
        if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != digest:
            only = folder / f"{version}.txt"
            only.write_text(line)
            fetch = ["download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(folder)]
            subprocess.run([sys.executable, "-m", "pip", *fetch, "-r", str(only)], check=True)
    return wheel


class Index:
    """Empty wheels of all that this environment has of a lock, at the lock's version and a newer one.

    Each has the requirements of what is installed here. Those named as `whole` have its files too.
    """

    def __init__(self, folder: Path, whole: Iterable[str] = ()) -> None:
        self._folder = folder
        self._whole = set(whole)
        self.variables = {"PIP_INDEX_URL": folder.as_uri()}
        """What makes a pip ask it, and no other."""

    def lock(self, text: str) -> str:
        """The same lock, of the wheels that were made for it."""
        return ENTRY.sub(lambda entry: self._release(*entry.groups()), text)

    def _release(self, name: str, version: str, marker: str) -> str:
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # for another platform, so nothing will ask for it
            return f"{name}=={version}{marker} --hash=sha256:{'0' * 64}"
        page = self._folder / name
        page.mkdir(parents=True, exist_ok=True)
        digests = {}
        for each in (version, NEWER):
            wheel = page / f"{name.replace('-', '_')}-{each}-py3-none-any.whl"
            self._write(wheel, installed, each)
            digests[wheel.name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
        links = (f'<a href="{file}#sha256={digest}">{file}</a>' for file, digest in digests.items())
        (page / "index.html").write_text(f"<!DOCTYPE html>{''.join(links)}")
        return f"{name}=={version}{marker} --hash=sha256:{next(iter(digests.values()))}"

    def _write(self, wheel: Path, installed: Distribution, version: str) -> None:
        stem = wheel.name.removesuffix("-py3-none-any.whl")
        metadata = installed.read_text("METADATA")
        assert metadata
        files = {
            f"{stem}.dist-info/METADATA": re.sub(
                "^Version: .*$", f"Version: {version}", metadata, count=1, flags=re.M
            ).encode(),
            f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        if installed.name in self._whole:
            assert installed.files
            places = (each for each in installed.files if each.suffix in (".py", ".json", ".txt"))
            files |= {
                str(each): each.read_binary()
                for each in places
                if ".." not in each.parts and ".dist-info" not in each.parts[0]
            }
        record = f"{stem}.dist-info/RECORD"
        lines = [*(_recorded(name, content) for name, content in files.items()), f"{record},,"]
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in {**files, record: "\n".join(lines).encode()}.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # the same bytes at any time


def _recorded(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"
