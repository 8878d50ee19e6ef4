"""Ten minutes behind what stands before real API servers: as good as direct, within what is promised.

docs/operations.md, "What stands between", has the bounds. One control plane, one watcher a way, and
all of them live through the same: quiet, a break, a repair, a restart of the API server, and again.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.controlplane.conftest import shipped_access
from tests.controlplane.kubelet import not_ready, ready
from tests.controlplane.objects import create, deployment, deployments, settled
from tests.controlplane.plane import ControlPlane
from tests.controlplane.receivers import receivers
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess
from tests.middle.stores import KeptPlane, KinePlane
from tests.middle.things import WAYS, Way

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

HOLD = 2
LATE = {"direct": 5, "kubectl-proxy": 5, "haproxy-http": 8, "haproxy-tcp": 8, "nginx": 35}
"""Seconds from a change to its webhook that each way may take, the hold included."""
LISTS = {"direct": 2, "kubectl-proxy": 3, "haproxy-http": 3, "haproxy-tcp": 3, "nginx": 20}
"""How often each may list: once, and after the server was away."""
QUIET = 150
"""Longer than any of them lets a connection be silent."""


@contextmanager
def watcher(way: Way, plane: ControlPlane, folder: Path) -> Iterator[Told]:
    """One that has seen everything by its way; it tells a webhook."""
    with way.open(plane, folder) as kubeconfig, receivers() as (slack, hook):
        (folder / "secret").write_text(hook.secret)
        secrets = [{"file": str(folder / "secret")}]
        config = {
            "clusters": [{"name": way.name, "kubeconfig": str(kubeconfig)}],
            "health": {"degraded_for": f"{HOLD}s", "recovered_for": f"{HOLD}s"},
            "sinks": [{"name": "hook", "type": "webhook", "url": hook.url, "secrets": secrets}],
        }
        process = WatcherProcess(folder, config)
        try:
            process.start_fresh(within=120)  # behind nginx two watches have to fail first
            yield Told(process, slack, hook)
        finally:
            process.stop()


def arrives(each: Mapping[str, Told], story: list[str], within: float = 120) -> dict[str, float]:
    """By way, after how many seconds from now all of it was told, and nothing else ever."""
    begin, found = time.monotonic(), dict[str, float]()
    while len(found) < len(each):
        for way, told in each.items():
            headlines = told.headlines()
            assert headlines == story[: len(headlines)], (way, headlines)
            if way not in found and headlines == story:
                found[way] = time.monotonic() - begin
        assert time.monotonic() - begin < within, f"{story[-1]}: only {found}"
        time.sleep(0.1)
    print(story[-1], {way: round(seconds, 1) for way, seconds in found.items()}, flush=True)
    return found


def test_ten_minutes_behind_each(tmp_path: Path) -> None:
    """Each tells the same four, none late, nothing of a cluster out of sight, and lists hardly ever."""
    with ControlPlane() as plane, ExitStack() as stack:
        furnish(plane)
        each = {
            way.name: stack.enter_context(watcher(way, plane, tmp_path / way.name)) for way in WAYS
        }
        story, late = list[str](), list[dict[str, float]]()

        def breaks_and_heals(name: str) -> None:
            for kind, behaviour in (("degraded", not_ready), ("recovered", ready)):
                plane.kubelet.mark("shop", name, behaviour)
                story.append(f"deployment.{kind} {name}")
                late.append(arrives(each, story))
                time.sleep(30)

        time.sleep(QUIET)
        breaks_and_heals("web")
        plane.stop_apiserver()
        plane.start_apiserver()
        time.sleep(QUIET)
        breaks_and_heals("api")
        time.sleep(60)
        assert {way: told.headlines() for way, told in each.items()} == dict.fromkeys(each, story)
        worst = {way: max(seconds[way] for seconds in late) for way in each}
        assert {way: worst[way] for way in worst if worst[way] > LATE[way]} == {}
        for way, told in each.items():
            status, answer = told.watcher.get("/health/apiserver")
            lists = [line["reason"] for line in told.watcher.lines("cluster.listed")]
            print(way, lists, answer, flush=True)
            assert status == 200
            assert len(lists) <= LISTS[way], (way, lists)


@pytest.mark.parametrize("kept", [KeptPlane, KinePlane], ids=["etcd", "kine"])
def test_a_store_that_is_put_back(kept: type[KeptPlane], tmp_path: Path) -> None:
    """Ten minutes on it: told as ever, and after a restore what is down in the older copy."""
    with kept() as plane, ExitStack() as stack:
        furnish(plane)
        told = stack.enter_context(watcher(WAYS[0], plane, tmp_path / "direct"))
        time.sleep(QUIET)
        expected = []

        def turns(kind: str, within: float = LATE["direct"]) -> None:
            expected.append(f"deployment.{kind} web")
            arrives({"direct": told}, expected, within)

        plane.kubelet.mark("shop", "web", not_ready)
        turns("degraded")
        plane.keep_copy()
        time.sleep(60)
        plane.kubelet.unmark("shop", "web")
        turns("recovered")
        for number in range(50):
            annotations = {"annotations": {"number": str(number)}}
            plane.admin.patch(f"{deployments('shop')}/api", {"metadata": annotations})
        time.sleep(QUIET)
        plane.put_back()
        turns("degraded", within=90)
        [rewound] = told.watcher.lines("cluster.rewound")
        print(rewound, flush=True)
        time.sleep(60)
        plane.kubelet.mark("shop", "web", ready)
        turns("recovered")
        time.sleep(60)
        assert told.headlines() == expected


def furnish(plane: ControlPlane) -> None:
    """The shipped rights, and two Deployments that are well."""
    plane.admin.apply(*shipped_access())
    plane.admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    for name in ("web", "api"):
        plane.admin.wait_for(create(plane.admin, "shop", deployment(name)), settled)
