"""A bad network in front of the real API server, and an API server that comes back as another one."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.client import ApiError, Client, Json
from tests.controlplane.kubelet import Kubelet, not_ready
from tests.controlplane.objects import create, deployment, deployments, settled
from tests.controlplane.plane import ControlPlane, free_ports
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess
from tests.faults.proxy import Proxy, proxied
from tests.integration.conftest import Watched
from watcher.clock import SystemClock
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import find_auth
from watcher.cluster.transport import Timings
from watcher.ports import Broken, Deleted, Opened

SWIFT = Timings(idle=2, quiet=0.05, catch_up=0.2, pause=(0.05, 0.1), backoff=0.1, backoff_cap=0.5)


def through(plane: ControlPlane, proxy: Proxy, path: Path, user: str = "watcher") -> Path:
    """A kubeconfig that leads through the proxy."""
    config = json.loads(plane.write_kubeconfig(path, user).read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path.write_text(json.dumps(config))
    return path


async def test_a_bad_network(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """F3, F5: half-open, dropped, slow and reset connections lose nothing, and cost no list."""
    path = deployments(namespace)

    async def scale(replicas: int) -> None:
        change = {"spec": {"replicas": replicas}}
        await asyncio.to_thread(plane.admin.patch, f"{path}/web", change)

    async def seen(replicas: int) -> None:
        async with asyncio.timeout(10):
            while (await watched.applied("web")).desired != replicas:
                pass

    await asyncio.to_thread(plane.admin.create, path, deployment("web"))
    async with Proxy(plane.port) as proxy:
        auth = find_auth(SystemClock(), through(plane, proxy, tmp_path / "kubeconfig"))
        cluster = KubeCluster("test", auth, SystemClock(), scopes=[namespace], timings=SWIFT)
        watched = Watched(cluster)
        running = asyncio.create_task(cluster.run())
        try:
            await watched.until(Opened)
            proxy.freeze()
            await scale(2)
            await seen(2)
            proxy.drop()
            await scale(3)
            assert "no answer" in str((await cluster.probe()).error)
            proxy.heal()
            await seen(3)
            proxy.delay = 0.2
            await scale(4)
            await seen(4)
            proxy.reset()
            await watched.until(Broken)
            await scale(5)
            await seen(5)
            proxy.delay = 0
            await asyncio.to_thread(plane.admin.delete, f"{path}/web")
            async with asyncio.timeout(10):
                await watched.until(Deleted)
            assert cluster.stream(namespace).lists == {"start": 1}
        finally:
            running.cancel()
            await asyncio.wait([running])
            await cluster.close()


def test_another_server_with_the_same_data(
    plane: ControlPlane,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
    tmp_path: Path,
) -> None:
    """F8, F27, F33, F34: another port, certificate, CA and token, and a real 410, are a reconnect."""
    watcher.config["heartbeat"]["interval"] = "8s"
    watcher.start_fresh()
    names = ("same", "breaks", "goes")
    paths = {name: create(admin, namespace, deployment(name)) for name in names}
    for path in paths.values():
        admin.wait_for(path, settled)
    kubelet.mark(namespace, "goes", not_ready)
    told.wait("deployment.degraded", "goes")

    plane.stop_apiserver()
    plane.replace_secrets("watcher")
    [plane.port] = free_ports(1)
    plane.start_apiserver()
    admin.delete(paths["goes"])
    admin.wait_gone(paths["goes"])
    kubelet.mark(namespace, "breaks", not_ready)
    plane.write_kubeconfig(tmp_path / "kubeconfig")

    told.wait("deployment.degraded", "breaks")
    told.wait("deployment.closed", "goes")
    watcher.catch_up(admin, namespace)
    assert sorted(told.story()) == [
        "deployment.closed goes", "deployment.degraded breaks", "deployment.degraded goes",
    ]  # fmt: skip
    lists = [line["reason"] for line in watcher.audit if line["event"] == "cluster.listed"]
    assert lists == ["start", "expired"]


ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{}"
MAY_READ = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]}


def grant(admin: Client, namespace: str) -> str:
    """Give nobody a Role here, and no right anywhere else; gives the path of the binding."""
    group = "rbac.authorization.k8s.io"
    with contextlib.suppress(ApiError):
        admin.create(
            ROLES.format(namespace, "roles"), {"metadata": {"name": "w"}, "rules": [MAY_READ]}
        )
    binding: Json = {
        "metadata": {"name": "w"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "w"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "nobody"}],
    }
    admin.create(ROLES.format(namespace, "rolebindings"), binding)
    return ROLES.format(namespace, "rolebindings/w")


@pytest.fixture
def other(admin: Client) -> Iterator[str]:
    """A second namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    admin.delete(deployments(name))
    admin.delete(f"/api/v1/namespaces/{name}")


def test_rights_in_two_namespaces_only(
    plane: ControlPlane,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
    other: str,
    tmp_path: Path,
) -> None:
    """F45: Roles are enough; rights withdrawn in one namespace are told, and do not disturb the other."""
    binding = grant(admin, namespace)
    grant(admin, other)
    for where in (namespace, other):
        path = create(admin, where, deployment(f"in-{where}"))
        admin.wait_for(path, settled)
    with proxied(plane.port) as (proxy, loop):
        kubeconfig = through(plane, proxy, tmp_path / "kubeconfig", "nobody")
        watcher.config["clusters"] = [
            {"name": "test", "kubeconfig": str(kubeconfig), "namespaces": [namespace, other]}
        ]
        watcher.config["heartbeat"]["forbidden_for"] = "2s"
        watcher.start_fresh()

        admin.delete(binding)
        loop.call_soon_threadsafe(proxy.reset)
        opened = told.wait("cluster.unauthorized")
        assert f"in namespace {namespace}: 403" in opened["data"]["message"]
        for where in (namespace, other):
            kubelet.mark(where, f"in-{where}", not_ready)
        told.wait("deployment.degraded", f"in-{other}")
        kubelet.unmark(other, f"in-{other}")
        told.wait("deployment.recovered", f"in-{other}")
        assert f"deployment.degraded in-{namespace}" not in told.story()
        [row] = watcher.rows(namespace)
        assert row["health"] == "unknown"
        assert watcher.get("/health/apiserver")[0] == 200

        grant(admin, namespace)
        told.wait("cluster.restored")
        told.wait("deployment.degraded", f"in-{namespace}")
        assert told.story() == [
            "cluster.unauthorized",
            f"deployment.degraded in-{other}",
            f"deployment.recovered in-{other}",
            "cluster.restored",
            f"deployment.degraded in-{namespace}",
        ]
