"""Watch events from the socket to their phase, against bare socket read and decode of the same bytes."""

import asyncio
import io
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from watcher import audit
from watcher.clock import SystemClock
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import find_auth
from watcher.cluster.decode import Line
from watcher.core.planning import Audience
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.follower import Follower
from watcher.metrics import Metrics
from watcher.ports import Applied, WatchEvent
from watcher.reporting import Reporting
from watcher.stores.database import open_store
from watcher.view import View

DEPLOYMENTS, EVENTS, ROUNDS = 10_000, 200_000, 3


def main() -> None:
    """Alternate the two, so that a noisy machine is unfair to both."""
    audit.configure(io.StringIO(), "error", json=True)
    bare, whole = [], []
    for _ in range(ROUNDS):
        bare.append(EVENTS / _bare())
        whole.append(asyncio.run(_pipeline()))
    print(f"bare socket read + decode : {statistics.median(bare):>9,.0f} events/s")
    print(f"whole pipeline, one core  : {statistics.median(whole):>9,.0f} events/s (goal 50,000)")
    ratio = statistics.median(w / b for w, b in zip(whole, bare, strict=True))
    print(f"ratio                     : {ratio:>9.0%} (goal 50 %)")


def _feed(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "benchmarks.feed", str(DEPLOYMENTS), str(EVENTS), *arguments]
    feed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert feed.stdout is not None
    return feed, int(feed.stdout.readline())


def _bare() -> float:
    feed, port = _feed("raw")
    decode, count, rest = msgspec.json.Decoder(Line).decode, 0, b""
    with feed, socket.create_connection(("127.0.0.1", port)) as source:
        began = time.perf_counter()
        while chunk := source.recv(1 << 18):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                decode(line)
            count += len(lines)
        took = time.perf_counter() - began
    assert count == EVENTS
    return took


async def _pipeline() -> float:
    """Events judged a second; what the inbox merges under backlog is not counted."""
    feed, port = _feed()
    clock, view = SystemClock(), View()
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder, "kubeconfig")
        kubeconfig.write_text(_KUBECONFIG % port)  # noqa: ASYNC240 - before anything is timed
        store = open_store(f"sqlite:///{folder}/bench.db")
        cluster = KubeCluster("bench", find_auth(clock, kubeconfig), clock)
        reporting = Reporting(view, Metrics(view, clock))
        follower = Follower(
            cluster,
            view,
            store,
            clock,
            [Audience("none")],
            HealthPolicy(),
            ClusterPolicy(),
            reporting,
        )
        await follower.restore()
        run = asyncio.create_task(cluster.run())
        judged, began = 0, 0.0
        while True:
            events = await cluster.events()
            if view.clusters["bench"].complete_at is not None and not judged:
                began = time.perf_counter()
            await follower.step(clock.now(), events)
            if began:
                judged += len(events)
            tracked = view.clusters["bench"].tracked
            if (
                tracked
                and max(int(t.snapshot.resource_version) for t in list(tracked.values())[-1:])
                > EVENTS - 10
            ):
                break
        took = time.perf_counter() - began
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await cluster.close()
        await store.close()
    feed.kill()
    feed.wait()
    if feed.stdout is not None:
        feed.stdout.close()
    print(
        f"  judged {judged:,} of {EVENTS:,} events, the others were newer news of the same object"
    )
    return judged / took


def _is_last(events: Sequence[WatchEvent]) -> bool:
    return any(
        isinstance(event, Applied) and event.snapshot.resource_version == str(EVENTS + 1)
        for event in events[-5:]
    )


_KUBECONFIG = """
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: "http://127.0.0.1:%d"}}]
users: [{name: bench, user: {}}]
"""
