"""A store in trouble: nothing advances and everybody can see why; afterwards what is true is told once."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.outside import Outside


@pytest.fixture
def watcher(world: Outside, tmp_path: Path) -> Iterator[WatcherProcess]:
    made = WatcherProcess(tmp_path, world.config(tmp_path))
    made.start_fresh()
    yield made
    made.stop()


@contextmanager
def full(watcher: WatcherProcess, store: Path) -> Iterator[None]:
    """No file may grow: what the kernel answers is what it answers when the disk is full."""
    process = psutil.Process(watcher.pid)
    log = store.with_name(f"{store.name}-wal")
    size = log.stat().st_size
    assert size > watcher.log_size + 20_000, "else the process could not say what is wrong"
    process.rlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def locked(watcher: WatcherProcess, store: Path) -> Iterator[None]:
    """Somebody's shell has a transaction open."""
    with closing(sqlite3.connect(store, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        yield
        rival.execute("ROLLBACK")


@contextmanager
def gone(watcher: WatcherProcess, store: Path) -> Iterator[None]:
    """Moved away, and an empty file in its place."""
    aside = store.with_name("aside")
    store.rename(aside)
    store.touch()
    yield
    aside.replace(store)


TROUBLES: list[tuple[Callable[[WatcherProcess, Path], AbstractContextManager[None]], str]] = [
    (full, "full|disk I/O error"),
    (locked, "locked"),
    (gone, "watcher.db was deleted or replaced"),
]


def said(watcher: WatcherProcess) -> list[str]:
    """What its log tells of the store."""
    return [line["event"] for line in watcher.audit if line["event"].startswith("store.")]


def test_trouble_after_trouble(world: Outside, watcher: WatcherProcess, tmp_path: Path) -> None:
    """Row 29: full, locked, gone: not ready and why, counted, nothing sent but one alarm; then each change once."""
    expected: list[str] = []
    ready = 3
    for trouble, words in TROUBLES:
        ready = 0 if ready else 3
        with trouble(watcher, tmp_path / "watcher.db"):
            world.set_ready("web", ready)
            [reason] = eventually(lambda: watcher.get("/readyz")[1].get("reasons"))
            assert any(word in reason for word in words.split("|")), reason
            assert watcher.get("/healthz")[0] == 200
            if trouble is gone:
                eventually(lambda: "store.failing" in world.told)
                alarm = world.taken[-1].body
                assert "deleted or replaced" in alarm["data"]["message"]
                expected.append("store.failing")
            assert world.told == expected
        eventually(lambda: watcher.get("/readyz")[0] == 200)
        expected.append(f"deployment.{'recovered' if ready else 'degraded'} web")
        eventually(lambda: world.told == expected, instead=lambda: world.told)
    assert len(world.taken) == len(expected), "each once"
    known = ["store.created", *["store.failing", "store.restored"] * 3]
    eventually(lambda: said(watcher) == known, instead=lambda: said(watcher))
    metrics = watcher.text("/metrics")
    errors = next(
        line for line in metrics.splitlines() if "watcher_store_errors_total" in line[:30]
    )
    assert float(errors.split()[1]) >= 3
