"""Plays the kubelet: gives every pod the status that its image, or a mark of the test, asks for."""

import concurrent.futures
import http.client
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType

from tests.controlplane.client import ApiError, Client, Json

POLL_SECONDS = 0.1
WORKERS = 8

Behaviour = Callable[[Json], Json]  # a pod -> the status it is given


def ready(pod: Json) -> Json:
    return _running(pod, {"running": {"startedAt": _now()}}, is_ready=True)


def not_ready(pod: Json) -> Json:
    """It runs, and its readiness probe fails."""
    return _running(pod, {"running": {"startedAt": _now()}})


def crash_looping(pod: Json) -> Json:
    return _crashed(pod, {"exitCode": 1, "reason": "Error"})


def oom_killed(pod: Json) -> Json:
    return _crashed(pod, {"exitCode": 137, "reason": "OOMKilled"})


def image_pull_backoff(pod: Json) -> Json:
    image = pod["spec"]["containers"][0]["image"]
    told = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
    return {**_running(pod, {"waiting": told}), "phase": "Pending"}


def unschedulable(pod: Json) -> Json:
    told = {"reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    return {"phase": "Pending", "conditions": [_condition("PodScheduled", False, told)]}


#: What becomes of a pod by the name of its image; every other image becomes ready.
IMAGES = MappingProxyType(
    {
        "broken": image_pull_backoff,
        "crashing": crash_looping,
        "oom": oom_killed,
        "unready": not_ready,
        "unschedulable": unschedulable,
    }
)


class Kubelet:
    """Polls for pods that nobody has looked at yet, in a thread of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._marks: dict[tuple[str, str], Behaviour] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._pool = concurrent.futures.ThreadPoolExecutor(WORKERS, "kubelet")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown()

    def pods(self, namespace: str, deployment: str) -> list[Json]:
        """Its pods, of every revision."""
        found = self._client.list(f"/api/v1/namespaces/{namespace}/pods")
        return [pod for pod in found if _deployment(pod) == deployment]

    def mark(self, namespace: str, deployment: str, behaviour: Behaviour) -> None:
        """From now on all its pods behave like this, those to come included."""
        self._marks[namespace, deployment] = behaviour
        self._report_all(namespace, deployment)

    def unmark(self, namespace: str, deployment: str) -> None:
        """Its pods go back to what their image says."""
        del self._marks[namespace, deployment]
        self._report_all(namespace, deployment)

    def report(self, pod: Json, behaviour: Behaviour) -> None:
        """Set the status of this one pod, now and only now."""
        self._client.patch(_path(pod) + "/status", {"status": behaviour(pod)})

    def _report_all(self, namespace: str, deployment: str) -> None:
        for pod in self.pods(namespace, deployment):
            try:
                self.report(pod, self._behaviour(pod))
            except ApiError as error:
                if error.status != http.HTTPStatus.NOT_FOUND:  # deleted since it was listed
                    raise

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            try:
                pending = self._client.list("/api/v1/pods?fieldSelector=status.phase%3DPending")
                new = [pod for pod in pending if "conditions" not in pod["status"]]
                list(self._pool.map(self._first_report, new))
            except (OSError, http.client.HTTPException):
                continue  # the API server is down: a test stopped it
            except ApiError as error:
                if error.status < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.status not in (
                    http.HTTPStatus.UNAUTHORIZED,  # a server that has just started
                    http.HTTPStatus.FORBIDDEN,
                ):
                    raise

    def _first_report(self, pod: Json) -> None:
        # The version keeps a status that a test has set since the list.
        version = {"resourceVersion": pod["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "status": self._behaviour(pod)(pod)}
        try:
            self._client.patch(_path(pod) + "/status", patch)
        except ApiError as error:
            if error.status not in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT):
                raise

    def _behaviour(self, pod: Json) -> Behaviour:
        image = pod["spec"]["containers"][0]["image"].rpartition("/")[2].partition(":")[0]
        key = (pod["metadata"]["namespace"], _deployment(pod))
        return self._marks.get(key) or IMAGES.get(image, ready)


def _deployment(pod: Json) -> str:
    """The Deployment's name, from the ReplicaSet's; empty for any other pod."""
    owners = pod["metadata"].get("ownerReferences", [])
    template = pod["metadata"].get("labels", {}).get("pod-template-hash")
    if not template or not owners:
        return ""
    name: str = owners[0]["name"]
    return name.removesuffix(f"-{template}")


def _path(pod: Json) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _crashed(pod: Json, terminated: Json) -> Json:
    container = pod["spec"]["containers"][0]["name"]
    told = f"back-off 5m0s restarting failed container={container}"
    last = {**terminated, "startedAt": _now(), "finishedAt": _now()}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": told}}
    return _running(pod, waiting, last=last)


def _running(pod: Json, state: Json, *, is_ready: bool = False, last: Json | None = None) -> Json:
    why = None if is_ready else {"reason": "ContainersNotReady"}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": is_ready,
            "started": is_ready,
            "restartCount": 5 if last else 0,
            "state": state,
            "lastState": {"terminated": last} if last else {},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Running",
        "startTime": _now(),
        "conditions": [
            _condition("PodScheduled", True),
            _condition("Initialized", True),
            _condition("ContainersReady", is_ready, why),
            _condition("Ready", is_ready, why),
        ],
        "containerStatuses": containers,
    }


def _condition(kind: str, status: bool, why: Json | None = None) -> Json:
    return {
        "type": kind,
        "status": "True" if status else "False",
        "lastTransitionTime": _now(),
        **(why or {}),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
