"""Control planes whose store can be put back: on etcd, and on SQLite behind kine as k3s has it."""

import hashlib
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.controlplane.binaries import cache, go_command, locked, run
from tests.controlplane.plane import ControlPlane

HERE = Path(__file__).parent / "kine"


def locate(say: Callable[[str], None] = print) -> Path:
    """The binary; what is not in the user's cache is built, which takes some minutes."""
    inputs = b"".join((HERE / name).read_bytes() for name in ("go.mod", "go.sum"))
    target = cache().parent / "kine" / hashlib.sha256(inputs).hexdigest()[:12] / "kine-cgo"
    with locked(target.parent.parent / "lock"):
        if not target.is_file():
            say("building kine: four minutes when Go has nothing cached")
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".partial")
            go = [go_command(say), "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
            # With the SQLite that is not C's, the API server on it never becomes ready.
            run([*go, "-o", str(partial), "github.com/k3s-io/kine"], HERE, cgo=True)
            partial.replace(target)
    return target


class KeptPlane(ControlPlane):
    """Its store may be put back to a copy that was made before."""

    store = "etcd"

    def keep_copy(self) -> None:
        """Remember the store as it is now."""
        with self._down() as data:
            shutil.copytree(data, self.folder / "copy")

    def put_back(self) -> None:
        """As a restored snapshot does: everything is started anew, and the revisions are lower."""
        with self._down() as data:
            shutil.rmtree(data)
            shutil.copytree(self.folder / "copy", data)

    @contextmanager
    def _down(self) -> Iterator[Path]:
        self.stop_apiserver(kill=True)
        self._end(self.store, signal.SIGTERM)
        yield self.folder / self.store
        self._start_etcd()
        self.start_apiserver()


class KinePlane(KeptPlane):
    """On SQLite behind kine."""

    store = "kine"

    def __init__(self) -> None:
        super().__init__()
        self._binaries["kine"] = locate()

    def _start_etcd(self) -> None:
        folder = self.folder / self.store
        folder.mkdir(exist_ok=True)
        self._launch(
            self.store,
            f"--listen-address=127.0.0.1:{self._etcd_port}",
            f"--endpoint=sqlite://{folder / 'state.db'}",
            "--metrics-bind-address=0",
        )
