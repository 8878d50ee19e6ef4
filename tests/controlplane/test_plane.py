"""The control plane does what later tests take for granted."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.controlplane.binaries import locate
from tests.controlplane.client import ApiError, Client, Json
from tests.controlplane.kubelet import Kubelet, crash_looping, not_ready
from tests.controlplane.objects import (
    condition,
    create,
    deployment,
    settled,
    with_image,
)
from tests.controlplane.plane import ControlPlane, StartError

ROOT = Path(__file__).parents[2]


def ready_is(count: int) -> Callable[[Json], bool]:
    return lambda found: found["status"].get("readyReplicas", 0) == count


def test_pods_become_ready_and_are_counted(admin: Client, kubelet: Kubelet, namespace: str) -> None:
    """3/3, then 2/3 when one pod stops being ready, then 3/3 again."""
    path = create(admin, namespace, deployment("web", replicas=3))
    found = admin.wait_for(path, settled)
    available = condition(found, "Available")
    assert available
    assert available["status"] == "True"

    first, *_ = kubelet.pods(namespace, "web")
    kubelet.report(first, not_ready)
    admin.wait_for(path, ready_is(2))

    kubelet.mark(namespace, "web", crash_looping)
    admin.wait_for(path, ready_is(0))
    kubelet.unmark(namespace, "web")
    admin.wait_for(path, settled)


def test_a_marked_deployment_gets_no_ready_pod(
    admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    kubelet.mark(namespace, "web", not_ready)
    path = create(admin, namespace, deployment("web", replicas=2))
    admin.wait_for(path, lambda found: found["status"].get("unavailableReplicas") == 2)
    kubelet.unmark(namespace, "web")
    admin.wait_for(path, settled)


def test_a_rollout_finishes(admin: Client, namespace: str) -> None:
    path = create(admin, namespace, deployment("web", replicas=3))
    admin.wait_for(path, settled)
    admin.patch(path, with_image("app:2"))
    found = admin.wait_for(path, settled)
    assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


def test_a_broken_image_runs_into_the_progress_deadline(
    admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    path = create(admin, namespace, deployment("web", replicas=2, progressDeadlineSeconds=2))
    admin.wait_for(path, settled)
    admin.patch(path, with_image("broken:1"))

    def exceeded(found: Json) -> bool:
        progressing = condition(found, "Progressing") or {}
        return progressing.get("reason") == "ProgressDeadlineExceeded"

    found = admin.wait_for(path, exceeded)
    assert found["status"]["readyReplicas"] == 2  # the old ones still serve
    statuses = [pod["status"]["containerStatuses"][0] for pod in kubelet.pods(namespace, "web")]
    [broken] = [each for each in statuses if not each["ready"]]
    assert broken["state"]["waiting"]["reason"] == "ImagePullBackOff"


def test_a_quota_is_a_replica_failure(admin: Client, namespace: str) -> None:
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    admin.create(quotas, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    admin.wait_for(f"{quotas}/none", lambda found: "hard" in found["status"])
    path = create(admin, namespace, deployment("web"))
    found = admin.wait_for(path, lambda found: condition(found, "ReplicaFailure") is not None)
    failure = condition(found, "ReplicaFailure")
    assert failure
    assert failure["reason"] == "FailedCreate"
    assert "exceeded quota: none" in failure["message"]


def test_recreate_takes_every_pod_down_first(admin: Client, namespace: str) -> None:
    path = create(admin, namespace, deployment("web", replicas=2, strategy={"type": "Recreate"}))
    admin.wait_for(path, settled)
    admin.patch(path, with_image("unready:2"))
    admin.wait_for(path, ready_is(0))
    admin.patch(path, with_image("app:3"))
    admin.wait_for(path, settled)


def test_scaled_to_zero_and_back(admin: Client, kubelet: Kubelet, namespace: str) -> None:
    path = create(admin, namespace, deployment("web", replicas=2))
    admin.wait_for(path, settled)
    admin.patch(path, {"spec": {"replicas": 0}})
    admin.wait_for(path, settled)
    assert kubelet.pods(namespace, "web") == []
    admin.patch(path, {"spec": {"replicas": 1}})
    admin.wait_for(path, settled)


def test_a_deleted_namespace_goes_with_all_it_holds(admin: Client) -> None:
    namespace = "short-lived"
    admin.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = create(admin, namespace, deployment("web", replicas=2))
    admin.wait_for(path, settled)
    admin.delete(f"/api/v1/namespaces/{namespace}")
    admin.wait_gone(f"/api/v1/namespaces/{namespace}", within=30)


@pytest.mark.parametrize("kill", [pytest.param(False, id="ended"), pytest.param(True, id="killed")])
def test_a_restart_of_the_api_server_keeps_the_data(
    plane: ControlPlane, namespace: str, kill: bool
) -> None:
    path = create(plane.admin, namespace, deployment("web", replicas=2))
    before = plane.admin.wait_for(path, settled)
    plane.stop_apiserver(kill=kill)
    with pytest.raises(ConnectionRefusedError):
        plane.admin.get(path)
    plane.start_apiserver()
    assert plane.admin.get(path)["metadata"] == before["metadata"]
    plane.admin.patch(path, with_image("app:2"))
    plane.admin.wait_for(path, settled)


def test_the_watcher_may_read_deployments_and_nothing_else(plane: ControlPlane) -> None:
    watcher, nobody = plane.client("watcher"), plane.client("nobody")
    try:
        everywhere = "/apis/apps/v1/deployments"
        assert watcher.get(everywhere)["kind"] == "DeploymentList"
        refused = (
            (watcher, "/api/v1/pods"),
            (watcher, "/api/v1/secrets"),
            (nobody, everywhere),
        )
        for client, path in refused:
            with pytest.raises(ApiError) as caught:
                client.get(path)
            assert caught.value.reason == "Forbidden"
    finally:
        watcher.close()
        nobody.close()


def test_nothing_outlives_a_killed_test_run() -> None:
    script = (
        "import os, signal\n"
        "from tests.controlplane.plane import ControlPlane\n"
        "plane = ControlPlane()\n"
        "plane.start()\n"
        "print(plane.folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    folder = run.stdout.strip()
    assert folder, run.stderr
    try:
        deadline = time.monotonic() + 10
        while left := [
            process.info["name"]
            for process in psutil.process_iter(["name", "cmdline"])
            if any(folder in word for word in process.info["cmdline"] or [])
        ]:
            assert time.monotonic() < deadline, f"still running: {left}"
            time.sleep(0.05)
    finally:
        shutil.rmtree(folder)


def test_a_failed_start_shows_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in locate().items():
        (tmp_path / name).symlink_to(path)
    broken = tmp_path / "kube-apiserver"
    broken.unlink()
    broken.write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    plane = ControlPlane()
    with pytest.raises(StartError, match=r"kube-apiserver ended with 3\nthe disk is full"):
        plane.start()
    assert not plane.folder.exists()
