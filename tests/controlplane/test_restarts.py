"""The watcher is killed and started again: who was told stays told, who was not is told once."""

import time

import pytest

from tests.controlplane.client import Client, Json
from tests.controlplane.kubelet import Kubelet, not_ready
from tests.controlplane.objects import create, deployment, settled
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess


@pytest.fixture
def web(watcher: WatcherProcess, admin: Client, namespace: str) -> str:
    """A Deployment that everybody has seen healthy; gives its path."""
    watcher.start_fresh()
    path = create(admin, namespace, deployment("web"))
    admin.wait_for(path, settled)
    watcher.sees(namespace, "web", health="healthy")
    return path


@pytest.fixture
def degraded(web: str, told: Told, kubelet: Kubelet, namespace: str) -> Json:
    """The same Deployment when nothing of it serves and all have been told: the webhook."""
    kubelet.mark(namespace, "web", not_ready)
    opened = told.wait("deployment.degraded", "web")
    assert told.channel() == [["Unavailable"]]
    return opened


def test_killed_while_degraded_nothing_is_repeated(
    degraded: Json,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
) -> None:
    """Not after the hold either: one that breaks later, and is held as long, is told next."""
    admin.wait_for(create(admin, namespace, deployment("late")), settled)
    watcher.kill()
    watcher.start_fresh()
    watcher.sees(namespace, "web", health="degraded", since=degraded["data"]["since"])
    kubelet.mark(namespace, "late", not_ready)
    told.wait("deployment.degraded", "late")
    assert told.story() == ["deployment.degraded web", "deployment.degraded late"]

    kubelet.unmark(namespace, "web")
    recovered = told.wait("deployment.recovered", "web")
    assert recovered["data"]["incident"] == degraded["data"]["incident"]
    assert told.channel() == [["Recovered", "Recovered"], ["Unavailable"]]


def test_recovered_while_it_was_down_is_told_once(
    degraded: Json,
    web: str,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
) -> None:
    """It ends the incident of before, and a further restart does not tell it again."""
    watcher.kill()
    kubelet.unmark(namespace, "web")
    admin.wait_for(web, settled)
    watcher.start_fresh()
    recovered = told.wait("deployment.recovered", "web")
    assert recovered["data"]["incident"] == degraded["data"]["incident"]
    assert told.story() == ["deployment.degraded web", "deployment.recovered web"]
    assert told.channel() == [["Recovered", "Recovered"]]

    watcher.kill()
    watcher.start_fresh()
    watcher.catch_up(admin, namespace)
    assert told.story() == ["deployment.degraded web", "deployment.recovered web"]


def test_killed_during_the_hold_is_told_once(
    watcher: WatcherProcess, web: str, told: Told, admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    """With the true start of the outage: the hold does not begin anew."""
    watcher.kill()
    watcher.config["health"]["degraded_for"] = "5s"
    watcher.start_fresh()
    time.sleep(
        2.5
    )  # well for recovered_for: sooner it would be the same shortfall as before it was up
    kubelet.mark(namespace, "web", not_ready)
    pending = watcher.sees(namespace, "web", reason="none_available")
    watcher.catch_up(admin, namespace)  # by now the hold is stored
    assert told.story() == []
    watcher.kill()
    watcher.start_fresh()
    opened = told.wait("deployment.degraded", "web")
    assert opened["data"]["since"] == pending["since"]
    assert told.story() == ["deployment.degraded web"]
    assert told.channel() == [["Unavailable"]]
