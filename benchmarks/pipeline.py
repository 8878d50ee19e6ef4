"""Watch events from the socket to their phase, against bare socket read and decode of the same bytes.

All are counted in the processor time of their one process: what one core can do.
"""

import asyncio
import io
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from watcher import audit
from watcher.clock import SystemClock
from watcher.cluster.api import KubeCluster
from watcher.cluster.auth import find_auth
from watcher.cluster.decode import Line, decode_line
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
    """Take all of them in turn, so that a noisy machine is unfair to each."""
    audit.configure(io.StringIO(), "error", json=True)
    typed = msgspec.json.Decoder(Line).decode
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        rates["bare read + decode"].append(_bare(lambda line: decode_line(line, "", "bench")))
        rates["bare read + msgspec"].append(_bare(typed))
        rates["whole, a counter moves"].append(asyncio.run(_pipeline("moving")))
        rates["whole, nothing new"].append(asyncio.run(_pipeline()))
    bare = rates["bare read + decode"]
    for name, measured in rates.items():
        ratio = statistics.median(m / b for m, b in zip(measured, bare, strict=True))
        print(f"{name:<22} : {statistics.median(measured):>9,.0f} events/s  {ratio:>5.0%}")
    print("goal for the whole     :    50,000 events/s    50%")


def _feed(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "benchmarks.feed", str(DEPLOYMENTS), str(EVENTS), *arguments]
    feed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert feed.stdout is not None
    return feed, int(feed.stdout.readline())


def _bare(decode: Callable[[bytes], object]) -> float:
    feed, port = _feed("raw", "moving")
    count, rest = 0, b""
    with feed, socket.create_connection(("127.0.0.1", port)) as source:
        began = time.process_time()
        while chunk := source.recv(1 << 18):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                decode(line)
            count += len(lines)
        took = time.process_time() - began
    assert count == EVENTS
    return EVENTS / took


async def _pipeline(*what: str) -> float:
    """Events judged a second; what the inbox merges under backlog is not counted."""
    feed, port = _feed(*what)
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
        judged, began, last = 0, 0.0, False
        while not last:
            events = await cluster.events()
            news = sum(isinstance(event, Applied) for event in events)
            began = began or (time.process_time() if news else 0.0)
            await follower.step(clock.now(), events)
            judged, last = judged + news, _is_last(events)
        took = time.process_time() - began
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await cluster.close()
        await store.close()
    feed.kill()
    feed.wait()
    if feed.stdout is not None:
        feed.stdout.close()
    assert judged >= EVENTS * 0.9, f"judged {judged:,} of {EVENTS:,}: most were merged on the way"
    return judged / took


def _is_last(events: Sequence[WatchEvent]) -> bool:
    return any(
        isinstance(event, Applied) and event.snapshot.resource_version == str(EVENTS + 1)
        for event in events
    )


_KUBECONFIG = """
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: "http://127.0.0.1:%d"}}]
users: [{name: bench, user: {}}]
"""
