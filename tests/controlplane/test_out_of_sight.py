"""While a cluster cannot be seen it is the one incident, and nothing is inferred from silence."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.controlplane.client import Client, Json
from tests.controlplane.kubelet import Kubelet, not_ready
from tests.controlplane.objects import create, deployment, settled
from tests.controlplane.plane import ControlPlane, free_ports
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
GRANT: Json = {
    "metadata": {"name": "nobody-may-watch"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "deployment-watcher",
    },
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}],
}


@contextlib.contextmanager
def api_server_elsewhere(plane: ControlPlane) -> Iterator[None]:
    """The API server answers on a port that the watcher does not know, then where it did before."""
    usual, [other] = plane.port, free_ports(1)
    plane.stop_apiserver()
    plane.port = other
    try:
        plane.start_apiserver()
        yield
    finally:
        plane.stop_apiserver()
        plane.port = usual
        plane.start_apiserver()


def test_the_api_server_is_out_of_reach_for_a_while(
    plane: ControlPlane,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
) -> None:
    """One unreachable, one restored; what broke or ended meanwhile is told once, the rest never."""
    watcher.config["health"]["degraded_for"] = "6s"  # longer than the API server takes to stop
    watcher.start_fresh()
    names = ("same", "broken", "about-to", "breaks", "blinks", "repaired", "removed")
    paths = {name: create(admin, namespace, deployment(name)) for name in names}
    for path in paths.values():
        admin.wait_for(path, settled)
    for name in (known := ("broken", "repaired", "removed")):
        kubelet.mark(namespace, name, not_ready)
    for name in known:
        told.wait("deployment.degraded", name)
    before = told.story()
    kubelet.mark(namespace, "about-to", not_ready)
    held = watcher.sees(namespace, "about-to", reason="none_available")

    with api_server_elsewhere(plane):
        told.wait("cluster.unreachable")
        assert watcher.get("/healthz")[0] == 200
        status, answer = watcher.get("/health/apiserver")
        assert (status, answer["status"]) == (500, "error")
        status, answer = watcher.get("/health/deployments")
        assert (status, answer["status"]) == (200, "unknown")
        assert {row["health"] for row in answer["deployments"]} == {"unknown"}
        for name in ("breaks", "blinks"):
            kubelet.mark(namespace, name, not_ready)
            admin.wait_for(paths[name], lambda found: "readyReplicas" not in found["status"])
        for name in ("blinks", "repaired"):
            kubelet.unmark(namespace, name)
            admin.wait_for(paths[name], settled)
        admin.delete(paths["removed"])
        admin.wait_gone(paths["removed"])
        assert told.story() == [*before, "cluster.unreachable"]

    told.wait("deployment.degraded", "breaks")
    told.wait("deployment.recovered", "repaired")
    watcher.catch_up(admin, namespace)
    opened, closed, *after = told.story()[len(before) :]
    assert (opened, closed) == ("cluster.unreachable", "cluster.restored")
    assert sorted(after) == [
        "deployment.closed removed",
        "deployment.degraded about-to",
        "deployment.degraded breaks",
        "deployment.recovered repaired",
    ]
    assert told.wait("deployment.degraded", "about-to")["data"]["since"] == held["since"]
    report = told.wait("cluster.restored")["data"]["meanwhile"]
    assert {kind: [one["name"] for one in report[kind]["deployments"]] for kind in report} == {
        "degraded": ["breaks"],
        "returned": ["blinks"],
        "recovered": ["repaired"],
        "deleted": ["removed"],
    }
    for kind, name in (("degraded", "breaks"), ("closed", "removed"), ("recovered", "repaired")):
        assert told.wait(f"deployment.{kind}", name)["data"]["unseen"]
    assert ["Restored", "Restored"] in told.channel()
    assert watcher.get("/health/apiserver")[0] == 200
    assert watcher.get("/health/deployments")[1]["status"] == "degraded"


def test_a_token_without_the_rights(
    plane: ControlPlane, watcher: WatcherProcess, told: Told, admin: Client, tmp_path: Path
) -> None:
    """It says which right is missing, and goes on by itself once it is granted."""
    plane.write_kubeconfig(tmp_path / "kubeconfig", "nobody")
    watcher.start()
    opened = told.wait("cluster.unauthorized")
    status, answer = watcher.get("/readyz")
    assert status == 503
    told.story()
    [message] = told.slack.messages
    assert message.text.startswith("Unauthorized: cluster test since ")
    for words in (opened["data"]["message"], message.text, message.shown, str(answer["reasons"])):
        assert "cannot list deployments.apps at cluster scope" in words
        assert 'User "nobody" cannot list resource "deployments" in API group "apps"' in words

    admin.create(BINDINGS, GRANT)
    try:
        told.wait("cluster.restored")
        assert watcher.get("/readyz")[0] == 200
        assert told.story() == ["cluster.unauthorized", "cluster.restored"]
    finally:
        admin.delete(f"{BINDINGS}/{GRANT['metadata']['name']}")
    assert told.channel() == [["Restored", "Restored"]]
