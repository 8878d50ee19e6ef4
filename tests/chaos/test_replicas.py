"""`watcher run` on PostgreSQL: migrated on request, two replicas, one writer."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import ROOT, WatcherProcess
from tests.outside import Outside, outside
from tests.postgres import Postgres
from watcher.stores.schema import REVISION


@pytest.fixture
def replica(
    world: Outside, postgres: Postgres, tmp_path: Path
) -> Iterator[Callable[[str], WatcherProcess]]:
    """Makes processes that share one database."""
    url = postgres.database()
    with ExitStack() as stack:

        def make(name: str) -> WatcherProcess:
            folder = tmp_path / name
            folder.mkdir()
            made = WatcherProcess(folder, {**world.config(folder), "store": {"url": url}})
            stack.callback(made.stop)
            return made

        yield make


@pytest.fixture
def pair(replica: Callable[[str], WatcherProcess]) -> tuple[WatcherProcess, WatcherProcess]:
    """The writer, and the one that stands by."""
    first, second = replica("first"), replica("second")
    migrate(first)
    first.start_fresh()
    assert role(first) == "writer"
    second.start_fresh()
    return first, second


def migrate(watcher: WatcherProcess) -> str:
    command = [sys.executable, "-m", "watcher", "migrate", "--config", str(watcher.write_config())]
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def is_empty(watcher: WatcherProcess) -> bool:
    return watcher.rows("shop") == []


def role(watcher: WatcherProcess) -> object:
    return watcher.get("/readyz")[1].get("role")


def writes_within(watcher: WatcherProcess, seconds: float) -> None:
    eventually(lambda: role(watcher) == "writer", within=seconds, instead=lambda: role(watcher))


def test_it_waits_to_be_migrated(replica: Callable[[str], WatcherProcess]) -> None:
    """Up, not ready and why, in one clear line; by itself ready once somebody has migrated."""
    watcher = replica("only")
    watcher.start()

    def reasons() -> object:
        return [r for r in watcher.get("/readyz")[1].get("reasons", []) if "store" in r]

    newest = f"{REVISION:04}"
    wanted = f"store: the store has no schema yet, and {newest} is needed: run `watcher migrate`"
    eventually(lambda: reasons() == [wanted], instead=reasons)
    assert watcher.get("/healthz")[0] == 200
    said = [line["error"] for line in watcher.audit if line["event"] == "store.failing"]
    assert said == [wanted.removeprefix("store: ")]
    assert migrate(watcher) == f"schema created at {newest}\n"
    writes_within(watcher, 10)
    assert watcher.get("/readyz")[0] == 200


def test_the_standby_serves_its_view_and_sends_nothing(
    pair: tuple[WatcherProcess, WatcherProcess], world: Outside
) -> None:
    """F40: both watch and are ready, both say which they are, one tells."""
    writer, standby = pair
    assert role(standby) == "standby"
    assert standby.get("/readyz")[0] == 200
    world.set_ready("web", 0)
    for watcher in pair:
        watcher.sees("shop", "web", health="degraded")
    eventually(lambda: world.told == ["deployment.degraded web"])
    world.do(lambda: world.server.delete("shop", "web"))
    for watcher in pair:
        eventually(partial(is_empty, watcher))
    eventually(lambda: len(world.taken) == 2)
    assert world.told == ["deployment.degraded web", "deployment.closed web"]
    assert {line["event"] for line in standby.audit}.isdisjoint(
        {"lease.gained", "incident.opened", "notification.queued", "notification.sent"}
    )
    assert "lease.gained" in {line["event"] for line in writer.audit}


def test_a_writer_that_ends_in_order_is_followed_at_once(
    pair: tuple[WatcherProcess, WatcherProcess], world: Outside
) -> None:
    """Within two seconds; what was told stays told, and its end is told by the other."""
    writer, standby = pair
    world.set_ready("web", 0)
    eventually(lambda: world.told == ["deployment.degraded web"])
    assert writer.terminate() == 0
    writes_within(standby, 2)
    world.set_ready("web", 3)
    eventually(lambda: len(world.taken) == 2)
    assert world.told == ["deployment.degraded web", "deployment.recovered web"]
    assert world.taken[0].body["partitionkey"] == world.taken[1].body["partitionkey"]


def test_a_standby_takes_up_what_has_changed(
    pair: tuple[WatcherProcess, WatcherProcess], world: Outside
) -> None:
    """A new configuration is in force on it too, and with the lease it sends by that."""
    writer, standby = pair
    with outside() as other:
        sinks = [{"name": "hook", "type": "webhook", "url": other.url}]
        loaded = standby.reload("config.reloaded", sinks=sinks)
        assert (loaded["changed"], role(standby)) == (["sinks"], "standby")
        assert writer.terminate() == 0
        writes_within(standby, 2)
        world.set_ready("web", 0)
        eventually(lambda: other.told == ["deployment.degraded web"])
    assert world.told == []


def test_a_writer_that_is_killed_is_followed(
    pair: tuple[WatcherProcess, WatcherProcess], world: Outside
) -> None:
    """Within fifteen seconds; what happened in between is told once."""
    writer, standby = pair
    writer.kill()
    world.set_ready("web", 0)
    standby.sees("shop", "web", health="degraded")
    assert world.taken == []
    writes_within(standby, 15)
    eventually(lambda: world.told == ["deployment.degraded web"])
    assert len(world.taken) == 1


def test_a_writer_that_is_stopped_and_goes_on_is_none(
    pair: tuple[WatcherProcess, WatcherProcess], world: Outside
) -> None:
    """Stopped in the middle of a send it may end that one, under the same id; then it stands by."""
    writer, standby = pair
    world.hold()
    world.set_ready("web", 0)
    eventually(lambda: len(world.taken) == 1)
    writer.pause()
    writes_within(standby, 20)
    world.let_go()
    eventually(lambda: len(world.taken) == 2)
    writer.resume()
    eventually(lambda: role(writer) == "standby")
    world.set_ready("web", 3)
    eventually(lambda: len(world.told) == 2)
    assert world.told == ["deployment.degraded web", "deployment.recovered web"]
    assert len(world.taken) == 3
    assert world.taken[0].id == world.taken[1].id
    sent = [line for line in writer.audit if line["event"] == "notification.sent"]
    assert sent == [], "it could not settle what it had sent"
    assert role(writer) == "standby"
