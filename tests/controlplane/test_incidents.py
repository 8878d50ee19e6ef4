"""A Deployment breaks and heals: on-call, machines and the record all hear of it, once each."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.controlplane.client import Client, Json
from tests.controlplane.kubelet import Kubelet, not_ready, ready
from tests.controlplane.objects import (
    condition,
    create,
    deployment,
    deployments,
    settled,
    with_image,
)
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess


@pytest.fixture(autouse=True)
def running(watcher: WatcherProcess) -> None:
    watcher.start_fresh()


def settle(admin: Client, watcher: WatcherProcess, namespace: str, manifest: Json) -> str:
    """Create a Deployment and wait until all see that it is well; gives its path."""
    path = create(admin, namespace, manifest)
    admin.wait_for(path, settled)
    watcher.sees(namespace, manifest["metadata"]["name"], health="healthy")
    return path


def test_pods_lost_after_a_finished_rollout(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    """Degraded is told once per sink, and its end in the same places: nothing else is sent."""
    path = settle(admin, watcher, namespace, deployment("web", replicas=3))
    well = datetime.fromisoformat(watcher.sees(namespace, "web", health="healthy")["since"])
    recovered_for = timedelta(
        seconds=2
    )  # sooner it would be the same shortfall as before it was up
    admin.wait_for(path, lambda _: datetime.now(UTC) - well > recovered_for)
    lost = kubelet.pods(namespace, "web")[:2]
    for pod in lost:
        kubelet.report(pod, not_ready)

    opened = told.wait("deployment.degraded", "web")
    assert opened["source"] == "/clusters/test"
    assert opened["subject"] == f"namespaces/{namespace}/deployments/web"
    data = opened["data"]
    assert (data["reason"], data["severity"]) == ("below_minimum", "warning")
    assert data["facts"].items() >= {"desired": 3, "floor": 3, "available": 1}.items()
    # It had served for less than `recovered_for`, so it began with the first rollout.
    created = admin.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/web")["metadata"]
    since = datetime.fromisoformat(data["since"])
    assert since >= datetime.fromisoformat(created["creationTimestamp"])
    assert (datetime.fromisoformat(data["opened_at"]) - since).total_seconds() >= 2 - 0.001
    assert told.channel() == [["Degraded"]]
    [message] = told.slack.messages
    assert message.text.startswith(f"Degraded: Deployment {namespace}/web in test since ")
    for shown in ("Cluster: test", "Available: 1 of 3 at ", "Severity: warning"):
        assert shown in message.shown
    assert ": too few replicas, 1 of 3 replicas available, 3 needed. " in message.text

    for pod in lost:
        kubelet.report(pod, ready)
    recovered = told.wait("deployment.recovered", "web")
    assert recovered["data"]["incident"] == data["incident"]
    assert (opened["sequence"], recovered["sequence"]) == ("0000000001", "0000000002")
    assert told.story() == ["deployment.degraded web", "deployment.recovered web"]
    assert told.channel() == [["Recovered", "Recovered"]]  # the message as edited, then its thread
    [edited] = told.slack.messages
    assert edited.ts == message.ts
    assert "Available: 3 of 3" in edited.shown
    incident = [line for line in watcher.audit if line.get("incident") == data["incident"]]
    assert [line["event"] for line in incident if line["event"].startswith("incident.")] == [
        "incident.opened",
        "incident.resolved",
    ]
    sent = [(s["sink"], s["part"]) for s in incident if s["event"] == "notification.sent"]
    assert sorted(sent) == [
        ("machines", "event"),
        ("machines", "event"),
        ("oncall", "edit"),
        ("oncall", "post"),
        ("oncall", "reply"),
    ]


def test_a_rollout_to_a_broken_image(
    watcher: WatcherProcess, told: Told, admin: Client, namespace: str
) -> None:
    """The rollout has stalled, and the message says that the old version still serves."""
    manifest = deployment("web", replicas=2, progressDeadlineSeconds=2)
    path = settle(admin, watcher, namespace, manifest)
    admin.patch(path, with_image("broken:1"))
    opened = told.wait("deployment.degraded", "web")
    assert (opened["data"]["reason"], opened["data"]["severity"]) == ("rollout_stalled", "warning")
    assert opened["data"]["facts"]["old_serving"] == 1  # at least: the new pod might be one of two
    assert "ProgressDeadlineExceeded" in opened["data"]["message"]
    told.story()
    [message] = told.slack.messages
    assert "the old version still serves with at least 1" in message.text
    assert "Old version: still serves with at least 1 pod\n" in message.shown

    admin.patch(path, with_image("app:2"))
    told.wait("deployment.recovered", "web")
    assert told.story() == ["deployment.degraded web", "deployment.recovered web"]
    assert told.channel() == [["Recovered", "Recovered"]]


def test_a_quota_that_blocks_pods(told: Told, admin: Client, namespace: str) -> None:
    """Pods cannot be created, in the quota's own words."""
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    admin.create(quotas, {"metadata": {"name": "frugal"}, "spec": {"hard": {"pods": "1"}}})
    admin.wait_for(f"{quotas}/frugal", lambda found: "hard" in found["status"])
    create(admin, namespace, deployment("web", replicas=3))
    opened = told.wait("deployment.degraded", "web")
    assert opened["data"]["reason"] == "pods_not_created"
    told.story()
    [message] = told.slack.messages
    for words in (opened["data"]["message"], message.text, message.shown):
        assert "exceeded quota: frugal" in words
        assert "limited: pods=1" in words
    assert "pods cannot be created" in message.text


def test_a_recreate_rollout_that_fails(
    watcher: WatcherProcess, told: Told, admin: Client, namespace: str
) -> None:
    """The gap that Recreate permits is told when the controller gives up, which is after the holds."""
    manifest = deployment(
        "web", replicas=2, strategy={"type": "Recreate"}, progressDeadlineSeconds=3
    )
    path = settle(admin, watcher, namespace, manifest)
    admin.patch(path, with_image("unready:2"))
    opened = told.wait("deployment.degraded", "web")
    assert (opened["data"]["reason"], opened["data"]["severity"]) == ("rollout_stalled", "critical")
    assert told.story() == ["deployment.degraded web"]
    assert told.channel() == [["Unavailable"]]
    assert "the rollout has stalled and nothing serves" in told.slack.messages[0].text


def test_a_crash_loop_is_no_progress(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    """A pod that is ready for moments only: the controller calls each of them progress."""
    watcher.kill()
    watcher.config["health"]["no_progress_for"] = "5s"
    watcher.start_fresh()
    manifest = deployment("web", replicas=2, image="unready:1", progressDeadlineSeconds=5)
    path = create(admin, namespace, manifest)
    admin.wait_for(path, lambda found: found["status"].get("updatedReplicas") == 2)
    looping = kubelet.pods(namespace, "web")[0]
    began = datetime.now(UTC)
    while datetime.now(UTC) - began < timedelta(seconds=7):
        kubelet.report(looping, ready)
        admin.wait_for(path, lambda found: found["status"].get("readyReplicas") == 1)
        kubelet.report(looping, not_ready)
        admin.wait_for(path, lambda found: "readyReplicas" not in found["status"])
    progressing = condition(admin.get(path), "Progressing")
    assert progressing is not None
    assert progressing["reason"] == "ReplicaSetUpdated"
    data = told.wait("deployment.degraded", "web")["data"]
    assert data["reason"] == "no_progress"
    assert datetime.fromisoformat(data["since"]) < began + timedelta(seconds=1)
    assert "first rollout" in data["message"]


def test_scaled_to_zero_during_an_incident(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    """Nobody is left waiting for a recovery: the incident is closed, and says why."""
    path = settle(admin, watcher, namespace, deployment("web"))
    kubelet.mark(namespace, "web", not_ready)
    told.wait("deployment.degraded", "web")
    admin.patch(path, {"spec": {"replicas": 0}})
    closed = told.wait("deployment.closed", "web")
    assert closed["data"]["resolution"] == "scaled_to_zero"
    assert told.story() == ["deployment.degraded web", "deployment.closed web"]
    assert told.channel() == [["Closed", "Closed"]]
    assert "was scaled to zero" in told.slack.messages[0].text


def test_a_namespace_deleted_with_an_incident_in_it(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet
) -> None:
    """What is gone is closed as deleted; its healthy neighbour goes without a word."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    admin.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    for name in ("web", "neighbour"):
        settle(admin, watcher, namespace, deployment(name))
    kubelet.mark(namespace, "web", not_ready)
    told.wait("deployment.degraded", "web")
    admin.delete(f"/api/v1/namespaces/{namespace}")
    admin.wait_for(deployments(namespace), lambda found: not found["items"])
    closed = told.wait("deployment.closed", "web")
    assert closed["data"]["resolution"] == "deleted"
    # Its pods may go first, and then it says that it may not make new ones.
    told_of = [event for event in told.story() if event != "deployment.updated web"]
    assert told_of == ["deployment.degraded web", "deployment.closed web"]
    [[now, *thread]] = told.channel()
    assert (now, thread[-1]) == ("Closed", "Closed")
    assert watcher.rows(namespace) == []
