"""A volume turns read-only under the running process: nothing advances, and everybody can see why."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.seccomp import ReadOnly
from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.outside import Outside

DEGRADED = "deployment.degraded web"


@pytest.fixture
def volume() -> Iterator[ReadOnly]:
    with ReadOnly() as made:
        yield made


@pytest.fixture
def watcher(world: Outside, volume: ReadOnly, tmp_path: Path) -> Iterator[WatcherProcess]:
    config = world.config(tmp_path)
    config["sinks"].append({"name": "other", "type": "webhook", "url": world.url})
    config["dead_man"] = {"url": world.url, "interval": "1s"}
    made = WatcherProcess(tmp_path, config, before=volume.enter)
    try:
        made.start_fresh()
    except subprocess.SubprocessError:
        why = "the kernel does not let tests answer for it (WITHOUT=seccomp leaves this out)"
        pytest.fail(why, pytrace=False)
    yield made
    made.stop()


def test_a_volume_turns_read_only(
    world: Outside, watcher: WatcherProcess, volume: ReadOnly
) -> None:
    """Row 30: not ready and why, no ping, one alarm a sink and nothing else; then all of it once."""
    volume.on = True
    world.set_ready("web", 0)
    [reason] = eventually(lambda: watcher.get("/readyz")[1].get("reasons"))
    assert reason.startswith("store: ")
    assert watcher.get("/healthz")[0] == 200
    eventually(lambda: len(world.told) == 2, 25, lambda: world.told)
    assert volume.refused
    [withheld] = eventually(lambda: watcher.lines("dead_man.withheld") or None)
    assert withheld["reason"].startswith("the store does not write: ")
    assert world.told == 2 * ["store.failing"]

    volume.on = False
    eventually(lambda: watcher.get("/readyz")[0] == 200)
    eventually(lambda: len(world.told) == 6, 25, lambda: world.told)
    assert sorted(world.told) == sorted(2 * ["store.failing", DEGRADED, "store.restored"])
    assert len(world.taken) == 6, "each once"
    known = ["store.created", "store.failing", "store.restored"]
    eventually(lambda: said(watcher) == known, instead=lambda: said(watcher))


def said(watcher: WatcherProcess) -> list[str]:
    """What its log tells of the store."""
    return [line["event"] for line in watcher.audit if line["event"].startswith("store.")]
