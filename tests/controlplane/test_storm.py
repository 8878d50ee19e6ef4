"""Many Deployments break at once: one message for people, all events for machines, none lost."""

import concurrent.futures

from tests.controlplane.client import Client
from tests.controlplane.kubelet import Behaviour, Kubelet, not_ready, ready
from tests.controlplane.objects import create, deployment, deployments, settled
from tests.controlplane.receivers import eventually
from tests.controlplane.told import Told
from tests.controlplane.watcher_process import WatcherProcess

MANY, BROKEN = 300, 60
AT_ONCE = 8


def test_sixty_of_three_hundred_break_at_once(
    watcher: WatcherProcess, told: Told, admin: Client, kubelet: Kubelet, namespace: str
) -> None:
    """F44: all 300 are listed without a message; then one digest and 60 webhooks, and so at the end."""
    names = [f"web-{number:03}" for number in range(MANY)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda name: create(admin, namespace, deployment(name)), names))
    admin.wait_for(
        deployments(namespace), lambda found: all(map(settled, found["items"])), within=60
    )
    watcher.start_fresh()
    _, health = watcher.get("/health/deployments")
    assert (health["status"], health["summary"]["healthy"]) == ("ok", MANY)
    assert [row["name"] for row in health["deployments"]] == names
    assert {row["status"] for row in health["deployments"]} == {"ok"}
    assert told.story() == []

    broken = names[:BROKEN]
    of_all = admin.list(f"/api/v1/namespaces/{namespace}/pods")
    pods = [pod for pod in of_all if pod["metadata"]["labels"]["app"] in broken]

    def report(behaviour: Behaviour) -> None:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda pod: kubelet.report(pod, behaviour), pods))

    report(not_ready)
    eventually(lambda: len(told.hook.requests) >= BROKEN, instead=lambda: len(told.hook.requests))
    opened = [f"deployment.degraded {name}" for name in broken]
    assert sorted(told.story()) == opened
    [digest] = told.slack.messages
    assert "60 Deployments degraded in test" in digest.text
    thread = "\n".join(reply.shown for reply in digest.replies)
    assert [name for name in broken if f"{namespace}/{name}: " not in thread] == []

    report(ready)
    eventually(
        lambda: len(told.hook.requests) >= 2 * BROKEN, instead=lambda: len(told.hook.requests)
    )
    assert sorted(told.story()) == [
        *opened,
        *(f"deployment.recovered {name}" for name in broken),
    ]
    assert told.slack.messages == [digest]
    assert "60 Deployments were degraded in test: 60 recovered" in digest.text
