"""Namespaces that are left out: the API server does so for plain names, the watcher for patterns."""

import uuid
from collections.abc import Iterator

import pytest

from tests.controlplane.client import Client
from tests.controlplane.kubelet import Kubelet, not_ready
from tests.controlplane.objects import create, deployment, deployments, settled
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess


@pytest.fixture
def noisy(admin: Client) -> Iterator[list[str]]:
    """A namespace to be left out by its name, and another by a pattern."""
    names = [f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("system", "dev")]
    for name in names:
        admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield names
    for name in names:
        admin.delete(deployments(name))
        admin.delete(f"/api/v1/namespaces/{name}")


def test_nobody_hears_of_what_is_left_out(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet,
    namespace: str, noisy: list[str],
) -> None:  # fmt: skip
    """Under the shipped rights; the server's own answer has nothing of the one that is named."""
    system, dev = noisy
    watcher.config["clusters"][0]["namespaces_exclude"] = [system, f"{dev[:-1]}*"]
    for place in (*noisy, namespace):
        admin.wait_for(create(admin, place, deployment("web")), settled)
    watcher.start_fresh()
    selected = f"/apis/apps/v1/deployments?fieldSelector=metadata.namespace!={system}"
    left = {each["metadata"]["namespace"] for each in admin.list(selected)}
    assert {dev, namespace} <= left
    assert system not in left

    for place in (*noisy, namespace):
        kubelet.mark(place, "web", not_ready)
    assert told.wait("deployment.degraded", "web")["subject"].startswith(f"namespaces/{namespace}/")
    kubelet.unmark(namespace, "web")
    told.wait("deployment.recovered", "web")
    watcher.catch_up(admin, namespace)
    assert told.story() == ["deployment.degraded web", "deployment.recovered web"]
    assert watcher.get(f"/health/deployments?namespace={system}")[0] == 404
    answer = watcher.get("/health/deployments")[1]
    assert not {system, dev} & {row["namespace"] for row in answer["deployments"]}
    assert watcher.get("/health/apiserver")[0] == 200
