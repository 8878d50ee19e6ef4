"""A real etcd that is put back to an older copy of its data, under a watcher that goes on."""

from collections.abc import Iterator

import pytest

from tests.controlplane.client import Client
from tests.controlplane.conftest import shipped_access
from tests.controlplane.kubelet import Kubelet, not_ready
from tests.controlplane.objects import create, deployment, settled
from tests.controlplane.plane import ControlPlane
from tests.controlplane.receivers import eventually
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess
from tests.middle.stores import KeptPlane


@pytest.fixture
def plane(plane: ControlPlane) -> Iterator[KeptPlane]:
    """One of its own, since its store goes; the other shows that there can be one."""
    assert plane.port
    with KeptPlane() as own:
        own.admin.apply(*shipped_access())
        yield own


def test_the_copy_is_what_counts(
    plane: KeptPlane,
    watcher: WatcherProcess,
    told: Told,
    admin: Client,
    kubelet: Kubelet,
    namespace: str,
) -> None:
    """Versions are lower: it is listed anew, its end of what the copy lacks is told, and it goes on."""
    admin.wait_for(create(admin, namespace, deployment("before")), settled)
    plane.keep_copy()
    watcher.start_fresh()
    admin.wait_for(create(admin, namespace, deployment("after")), settled)
    kubelet.mark(namespace, "after", not_ready)
    told.wait("deployment.degraded", "after")

    plane.put_back()
    assert told.wait("deployment.closed", "after")["data"]["resolution"] == "deleted"
    [line] = eventually(lambda: watcher.lines("cluster.rewound"))
    assert int(line["version"]) < int(line["reached"])
    watcher.catch_up(admin, namespace)
    kubelet.mark(namespace, "before", not_ready)
    told.wait("deployment.degraded", "before")
