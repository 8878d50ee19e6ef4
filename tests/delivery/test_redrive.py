"""`watcher outbox` beside a running watcher: what is stuck, and sending it once more."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import ROOT, WatcherProcess
from tests.delivery.rig import Recording, rig
from tests.outside import Outside, outside
from watcher.core.delivery import DeliveryState, Outcome
from watcher.core.model import Json
from watcher.errors import SinkError
from watcher.ports import Notification
from watcher.testing.objects import deployment


@pytest.fixture
def world() -> Iterator[Outside]:
    with outside() as made:
        for name in ("web", "pay"):
            made.do(partial(made.server.apply, deployment("shop", name)))
        yield made


@pytest.fixture
def process(world: Outside, tmp_path: Path) -> Iterator[WatcherProcess]:
    made = WatcherProcess(tmp_path, world.config(tmp_path))
    made.start_fresh()
    yield made
    made.stop()


def ask(process: WatcherProcess, *words: str, code: int = 0) -> Any:  # noqa: ANN401 - any JSON
    """What the command says on standard output, as JSON."""
    config = str(process.write_config())
    command = [sys.executable, "-m", "watcher", *words, "--config", config, "-o", "json"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def listed(process: WatcherProcess) -> list[tuple[str, str, str]]:
    rows = ask(process, "outbox", "list")
    return [(row["subject"], row["state"], row["reason"]) for row in rows]


def test_redriven_deliveries_are_sent_by_the_running_watcher(
    process: WatcherProcess, world: Outside, tmp_path: Path
) -> None:
    """Row 71: without a restart and under the same ids; the parked sink at once, not after its five minutes."""
    world.status = 400
    world.set_ready("web", 0)
    dead = ("shop/web", "dead", "http_400")
    eventually(lambda: listed(process) == [dead], instead=lambda: listed(process))
    world.status = 401
    world.set_ready("pay", 0)
    parked = ("shop/pay", "parked", "unauthorized")
    eventually(lambda: listed(process) == [parked, dead], instead=lambda: listed(process))
    before = {one.id for one in world.taken}
    world.status, count = 204, len(world.taken)
    answer = ask(process, "outbox", "redrive", "--by", "the on-call")
    assert set(answer["redriven"]) == before
    assert answer["left_out"] == {}
    eventually(lambda: listed(process) == [], within=20, instead=lambda: listed(process))
    assert {one.id for one in world.taken[count:]} == before
    assert len(world.taken) == count + 2
    rows = ask(process, "history", "shop/")
    assert {(row["state"], row["redriven_by"]) for row in rows} == {("delivered", "the on-call")}
    told = eventually(lambda: process.lines("sink.redriven") or None)
    assert [(line["by"], line["sink"]) for line in told] == [("the on-call", "hook")]
    log = str(tmp_path / "audit.jsonl")
    assert ask(process, "audit", "verify", "--log", log)["findings"] == []
    named = ask(process, "outbox", "redrive", answer["redriven"][0], code=1)
    assert named["left_out"] == {answer["redriven"][0]: "it is delivered"}
    assert process.terminate() == 0
    assert ask(process, "audit", "verify")["ok"]


class Broken(Recording):
    """Takes nothing until it is mended."""

    mended = False

    async def send(self, notification: Notification) -> Json | None:
        if not self.mended:
            raise SinkError("http_503", Outcome.RETRY)
        return await super().send(notification)


async def test_what_was_too_old_is_sent_once_more(tmp_path: Path) -> None:
    """Its age counts anew from the redrive, or it would only be given up again; it says it is late."""
    sink = Broken("hook", max_age=timedelta(hours=1))
    async with rig(tmp_path, sink) as it:
        await it.opens("web")
        await it.passes(7200)
        assert await it.states("hook") == {"web/1 event": DeliveryState.EXPIRED}
        sink.mended = True
        (row,) = await it.rows("hook")
        await it.store.redrive([row.delivery.id], it.clock.now(), "me", after_end=False)
        it.dispatchers["hook"].resume()
        await it.passes(1)
        assert await it.states("hook") == {"web/1 event": DeliveryState.DELIVERED}
        assert [one.delivery_id for one in sink.sent] == [row.delivery.id]
        assert any("2 h" in note for note in sink.sent[0].message.notes), "it is late, and says so"
