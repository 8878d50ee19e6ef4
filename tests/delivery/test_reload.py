"""A configuration that changes under the running process: all of it is taken up, or nothing."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.outside import HOLDS, Outside, outside
from watcher.core.model import Json
from watcher.testing.objects import deployment

IN_FORCE = "watcher_config_last_reload_successful"


def in_force(watcher: WatcherProcess) -> bool:
    """Whether the newest configuration is, as its metric says."""
    metrics = watcher.text("/metrics").splitlines()
    (line,) = (each for each in metrics if each.startswith(f"{IN_FORCE} "))
    return float(line.split()[1]) == 1


def not_sent(watcher: WatcherProcess) -> set[tuple[str, str, str]]:
    """Sink, outcome and reason of what its log says of deliveries that nobody tries to send."""
    lines = watcher.lines("notification.parked", "notification.suppressed")
    return {(line["sink"], line["event"].partition(".")[2], line["reason"]) for line in lines}


def hook(name: str, at: Outside, **more: Any) -> Json:  # noqa: ANN401
    return {"name": name, "type": "webhook", "url": at.url, **more}


@pytest.fixture
def world() -> Iterator[Outside]:
    """An API server, and the receiver called `old`."""
    with outside() as made:
        for name in ("web", "api", "db"):
            made.do(partial(made.server.apply, deployment("shop", name)))
        yield made


@pytest.fixture
def new() -> Iterator[Outside]:
    """A second receiver."""
    with outside() as made:
        yield made


@pytest.fixture
def watcher(world: Outside, tmp_path: Path) -> Iterator[WatcherProcess]:
    """Tells `old`; not started."""
    config = {**world.config(tmp_path), "sinks": [hook("old", world)]}
    made = WatcherProcess(tmp_path, config)
    yield made
    made.stop()


def arrived(at: Outside, *told: str) -> None:
    eventually(lambda: at.told == [*told], instead=lambda: at.told)


def went_on(watcher: WatcherProcess) -> None:
    """It was one process with one lease and one list all along, ready, and nothing came twice."""
    assert len(watcher.lines("process.started", "lease.gained", "lease.ended")) == 2
    assert len(watcher.lines("cluster.listed")) == 1
    assert watcher.get("/readyz")[0] == watcher.get("/healthz")[0] == 200


def test_an_error_keeps_the_old_configuration(watcher: WatcherProcess, world: Outside) -> None:
    """Row 70: every mistake is shown with its place, what was goes on telling, and mending helps."""
    watcher.start_fresh()
    assert in_force(watcher)
    bad = {
        "health": {"degraded_for": 60},
        "sinks": [
            hook("old", world),
            {"name": "chat", "type": "slack", "token": "xoxb-in-the-file", "channel": "C0"},
        ],
    }
    failed = watcher.reload("config.reload_failed", **bad)
    places = [problem.split(": ")[1] for problem in failed["problems"]]
    assert sorted(places) == ["health.degraded_for", "sinks.1.channel", "sinks.1.token"]
    assert failed["level"] == "warning"
    assert not in_force(watcher)
    status, answer = watcher.get("/readyz")
    assert status == 200
    assert answer["config"].startswith("the newest is refused: ")
    assert "health.degraded_for" in answer["config"]
    world.set_ready("web", 0)
    arrived(world, "deployment.degraded web")
    missing = {"health": HOLDS, "sinks": [hook("old", world, secrets=[{"file": "/nowhere"}])]}
    (problem,) = watcher.reload("config.reload_failed", **missing)["problems"]
    assert problem == "sinks.0.secrets: file /nowhere cannot be read: No such file or directory"
    world.set_ready("web", 3)
    arrived(world, "deployment.degraded web", "deployment.recovered web")
    mended = watcher.reload("config.reloaded", sinks=[hook("old", world)])
    assert mended["changed"] == []
    assert in_force(watcher)
    assert "config" not in watcher.get("/readyz")[1]
    assert "xoxb-in-the-file" not in json.dumps(watcher.audit)
    went_on(watcher)


def test_what_a_signal_brings_into_force(
    watcher: WatcherProcess, world: Outside, new: Outside
) -> None:
    """Sinks, route and holds from then on: nothing is told twice, nor an end to whom knew of no begin."""
    watcher.config["health"] = {**HOLDS, "degraded_for": "1h"}
    watcher.start_fresh()
    world.set_ready("web", 0)
    arrived(world, "deployment.degraded web")
    world.set_ready("api", 2)
    watcher.sees("shop", "api", health="degraded")
    loaded = watcher.reload("config.reloaded", sinks=[hook("new", new)])
    assert (loaded["changed"], loaded["needs_restart"]) == (["sinks"], [])
    world.set_ready("web", 3)
    unsent = {("old", "parked", "sink_removed"), ("new", "suppressed", "never_told")}
    eventually(lambda: not_sent(watcher) == unsent, instead=lambda: not_sent(watcher))
    assert new.told == []
    loaded = watcher.reload("config.reloaded", health=HOLDS, web={"address": "127.0.0.1:1"})
    assert (loaded["changed"], loaded["needs_restart"]) == (["health"], ["web"])
    arrived(new, "deployment.degraded api")
    assert watcher.get("/readyz")[1]["config"] == "needs a restart: web"
    assert in_force(watcher)
    assert world.told == ["deployment.degraded web"]
    watcher.reload("config.unchanged")
    sinks = [hook("new", new), hook("old", world)]
    watcher.reload("config.reloaded", sinks=sinks)
    heard = ["deployment.degraded web", "deployment.recovered web", "deployment.degraded db"]
    arrived(world, *heard[:2])
    world.set_ready("db", 0)
    arrived(world, *heard)
    loaded = watcher.reload("config.reloaded", route={"sinks": ["new"]})
    assert loaded["changed"] == ["route"]
    world.set_ready("db", 3)
    arrived(world, *heard, "deployment.recovered db")
    heard = ["deployment.degraded api", "deployment.degraded db", "deployment.recovered db"]
    arrived(new, *heard)
    world.set_ready("web", 1)
    arrived(new, *heard, "deployment.degraded web")
    assert (len(world.taken), len(new.taken)) == (4, 4)
    unsent.add(("old", "suppressed", "no_route"))
    eventually(lambda: not_sent(watcher) == unsent, instead=lambda: not_sent(watcher))
    went_on(watcher)


def test_what_is_being_sent_is_finished_first(
    watcher: WatcherProcess, world: Outside, new: Outside
) -> None:
    """A sink that is changed while it hangs gets each event once, and keeps no other waiting."""
    watcher.config["sinks"] = [hook("slow", new), hook("old", world)]
    watcher.start_fresh()
    new.hold()
    world.set_ready("web", 0)
    arrived(new, "deployment.degraded web")
    sinks = [hook("slow", new, headers={"X-Team": "b"}), hook("old", world)]
    watcher.reload("config.reloaded", sinks=sinks)
    sinks[0] = hook("slow", new, headers={"X-Team": "c"})
    watcher.reload("config.reloaded", sinks=sinks)
    world.set_ready("web", 3)
    arrived(world, "deployment.degraded web", "deployment.recovered web")
    assert len(new.taken) == 1
    new.let_go()
    arrived(new, "deployment.degraded web", "deployment.recovered web")
    assert len(new.taken) == 2
    assert watcher.lines("notification.deferred") == []
    went_on(watcher)


def test_a_swapped_link_is_a_changed_file(
    watcher: WatcherProcess, world: Outside, new: Outside, tmp_path: Path
) -> None:
    """As a kubelet brings a ConfigMap up to date: without a signal, within some seconds."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    watcher.start_fresh()
    changed = watcher.config | {"sinks": [hook("old", new)], "clusters": [{"name": "other"}]}
    (tmp_path / "2" / "config.yaml").write_text(json.dumps(changed))
    (tmp_path / "..data_tmp").symlink_to("2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    (loaded,) = eventually(lambda: watcher.lines("config.reloaded") or None)
    assert (loaded["changed"], loaded["needs_restart"]) == (["sinks"], ["clusters"])
    world.set_ready("web", 0)
    arrived(new, "deployment.degraded web")
    assert world.told == []
    went_on(watcher)
