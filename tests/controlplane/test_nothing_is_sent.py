"""What people do to a Deployment every day, and what it does on its way, is no news to anybody.

The holds are zero here: a verdict that passed for degraded for one event would be told at once.
"""

from collections.abc import Callable

import pytest

from tests.controlplane.client import Client, Json
from tests.controlplane.objects import create, deployment, settled, with_image
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess

HOLDS = ("degraded_for", "none_available_for", "recovered_for")
RESTARTED = "kubectl.kubernetes.io/restartedAt"


@pytest.fixture
def impatient(watcher: WatcherProcess) -> WatcherProcess:
    """A watcher that tells at once."""
    watcher.config["health"] |= dict.fromkeys(HOLDS, "0s")
    watcher.start_fresh()
    return watcher


def observed(found: Json) -> bool:
    """Its controller has acted on the latest change."""
    return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])


def restart() -> Json:
    """What `kubectl rollout restart` does."""
    annotations = {RESTARTED: "2026-11-22T12:00:00Z"}
    return {"spec": {"template": {"metadata": {"annotations": annotations}}}}


STEPS: list[tuple[str, Json, Callable[[Json], bool], Json]] = [
    ("roll out", with_image("app:2"), settled, {"health": "healthy", "updated": 3}),
    ("scale up", {"spec": {"replicas": 6}}, settled, {"health": "healthy", "ready": 6}),
    ("scale down", {"spec": {"replicas": 2}}, settled, {"health": "healthy", "desired": 2}),
    ("pause", {"spec": {"paused": True}}, observed, {"health": "paused"}),
    ("roll out while paused", with_image("app:3"), observed, {"health": "paused"}),
    ("resume", {"spec": {"paused": None}}, settled, {"health": "healthy", "updated": 2}),
    ("restart", restart(), settled, {"health": "healthy", "updated": 2}),
    ("scale to zero", {"spec": {"replicas": 0}}, settled, {"health": "scaled_to_zero"}),
    ("scale from zero", {"spec": {"replicas": 3}}, settled, {"health": "healthy", "ready": 3}),
]


def test_everyday_changes_send_nothing(
    impatient: WatcherProcess, told: Told, admin: Client, namespace: str
) -> None:
    """Create, become ready, roll out cleanly, scale, pause, resume, restart, delete: nothing."""
    path = create(admin, namespace, deployment("web", replicas=3))
    admin.wait_for(path, settled)
    impatient.catch_up(admin, namespace)
    impatient.sees(namespace, "web", health="healthy", desired=3, ready=3)
    for step, patch, done, seen in STEPS:
        admin.patch(path, patch)
        admin.wait_for(path, done)
        impatient.catch_up(admin, namespace)
        impatient.sees(namespace, "web", **seen)
        assert told.story() == [], step
    admin.delete(path)
    admin.wait_gone(path)
    impatient.catch_up(admin, namespace)
    assert "web" not in {row["name"] for row in impatient.rows(namespace)}
    assert (told.story(), told.channel(), told.slack.requests) == ([], [], [])


def test_a_recreate_rollout_sends_nothing(
    impatient: WatcherProcess, told: Told, admin: Client, namespace: str
) -> None:
    """Recreate takes every pod down first, as it was told to."""
    path = create(admin, namespace, deployment("web", replicas=2, strategy={"type": "Recreate"}))
    admin.wait_for(path, settled)
    for image in ("app:2", "app:3"):
        admin.patch(path, with_image(image))
        admin.wait_for(path, settled)
    impatient.catch_up(admin, namespace)
    impatient.sees(namespace, "web", health="healthy", updated=2)
    assert (told.story(), told.channel()) == ([], [])


def test_sigterm_ends_it_in_order(watcher: WatcherProcess) -> None:
    """SIGTERM: it exits with 0 within seconds, and the audit log says so."""
    watcher.start_fresh()
    assert watcher.terminate() == 0
    assert watcher.audit[-1]["event"] == "process.stopped"
