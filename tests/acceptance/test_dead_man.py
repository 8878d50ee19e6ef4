"""When the dead-man ping goes out, and why it stays away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.acceptance.following import Followed, followed
from tests.acceptance.test_reachability import ERRORS
from tests.deployments import ZERO, Json, web
from tests.fault_server import FaultServer, answers
from watcher.cluster.decode import snapshot_from
from watcher.core.delivery import DeliveryState
from watcher.dead_man import DeadMan
from watcher.errors import SinkError, StoreError
from watcher.metrics import Metrics
from watcher.ports import Applied, Listed, Opened, Probe, Settlement
from watcher.reporting import Reporting
from watcher.sinks.http import Ping, Sender

MINUTE = 60.0
UNTOLD = "cluster prod is out of sight, and nobody has been told yet"


class Watched:
    """A cluster in sight at second 0, and the ping of the process that follows it."""

    def __init__(self, cluster: Followed) -> None:
        self.cluster = cluster
        self.sent = 0
        self.refuse: SinkError | None = None
        cluster.views.store_error = None
        self.reporting = Reporting(cluster.views, Metrics(cluster.views, cluster.clock))
        self.dead_man = DeadMan(
            self._ping, timedelta(minutes=1), ("chat", "hook"), 100,
            cluster.views, cluster.store, cluster.clock, self.reporting,
        )  # fmt: skip

    async def _ping(self) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.sent += 1

    async def trouble(self, minutes: float = 0) -> str:
        """What is wrong at the end of that time, looked at once a minute like the loop does."""
        for _ in range(round(minutes)):
            await self.dead_man.trouble()
            now = self.cluster.clock.now()
            await self.cluster.at((now - ZERO).total_seconds() + MINUTE)
        return await self.dead_man.trouble()

    async def lose(self, told: bool) -> None:
        """Make the cluster an incident; with `told` its opening has been delivered."""
        self.cluster.last_byte = ZERO
        for at in (15, 30, 45):
            await self.cluster.at(at, probe=Probe(ERRORS["fail"]))
        await self.deliver(told)

    async def deliver(self, done: bool) -> None:
        store, now = self.cluster.store, self.cluster.clock.now()
        for claim in await store.claim("chat", now, 10):
            state = DeliveryState.DELIVERED if done else DeliveryState.PENDING
            due = now + timedelta(hours=1)
            await store.settle(Settlement(claim.delivery.id, state, now, due=due))


@contextlib.asynccontextmanager
async def watched(folder: Path, seen: bool = True) -> AsyncIterator[Watched]:
    async with followed(folder) as cluster:
        if seen:
            await cluster.at(0, [listed(web(3)), Opened("")], Probe())
        yield Watched(cluster)


def listed(*objs: Json) -> Listed:
    return Listed("", tuple(snapshot_from(obj, "prod") for obj in objs))


async def test_all_is_well(tmp_path):
    """Everything is in sight and nothing waits: there is no reason to withhold it."""
    async with watched(tmp_path) as process:
        assert await process.trouble(10) == ""


async def test_before_the_first_list(tmp_path):
    """What was never seen is out of sight."""
    async with watched(tmp_path, seen=False) as process:
        assert await process.trouble() == UNTOLD


async def test_an_outage_counts_until_somebody_has_been_told(tmp_path):
    """Out of sight, then an incident, then delivered: only then people know, and may rely on us."""
    async with watched(tmp_path) as process:
        await process.cluster.at(10)
        process.cluster.last_byte = ZERO
        await process.cluster.at(20, probe=Probe(ERRORS["fail"]))
        assert await process.trouble() == UNTOLD
        await process.lose(told=False)
        assert process.cluster.follower.view.outage is not None
        assert await process.trouble() == UNTOLD
        await process.cluster.at(4000)
        await process.deliver(done=True)
        assert await process.trouble() == ""


async def test_one_sink_is_enough(tmp_path):
    """While one of them works people can be told; when none does, nobody can."""
    async with watched(tmp_path) as process:
        process.cluster.views.sink_troubles["chat"] = "invalid_auth"
        assert await process.trouble() == ""
        process.cluster.views.sink_troubles["hook"] = "connection refused"
        assert await process.trouble() == "no sink can be reached"


async def test_the_store_refuses(tmp_path):
    """What cannot be recorded is told to nobody."""
    async with watched(tmp_path) as process:
        process.reporting.store_refused(StoreError("the disk is full"))
        assert await process.trouble() == "the store does not write: the disk is full"
        process.reporting.store_works()
        assert await process.trouble() == ""


async def test_a_queue_that_stands_still(tmp_path):
    """Nothing of it goes for five minutes although the sink fails at nothing; or it is full."""
    async with watched(tmp_path) as process:
        low = snapshot_from(web(1, revision=2), "prod")
        await process.cluster.at(10, [Applied("", low)])
        await process.cluster.at(71)
        assert await process.trouble(4) == ""
        assert await process.trouble(1) == "the queue of chat does not move"
        process.cluster.views.sink_troubles["chat"] = "it is known to fail, and that is told"
        assert await process.trouble() == ""
        process.dead_man.queue_cap = 1
        assert await process.trouble() == "the queue is full", "known or not"
        process.dead_man.queue_cap = 100
        process.cluster.views.sink_troubles.clear()
        await process.deliver(done=True)
        assert await process.trouble(6) == ""


async def passes(process: Watched, seconds: int) -> None:
    """Let the loop live through that time; the store answers from a thread of its own."""
    for _ in range(seconds):
        await process.cluster.clock.advance(1)
        for _ in range(4):
            await process.cluster.store.sink_state("chat")  # in turn, and without a commit
            await process.cluster.clock.settle()


async def test_it_goes_out_at_every_interval(tmp_path):
    """Once a minute; after a trouble at once, and a moment's trouble only delays it."""
    async with watched(tmp_path) as process, Loop(process):
        await passes(process, 180)
        assert process.sent == 4
        await passes(process, 57)
        process.cluster.last_byte = ZERO  # for a moment, at the very time of the next
        await passes(process, 4)
        assert process.sent == 4
        process.cluster.last_byte = None
        await passes(process, 6)
        assert process.sent == 5
        assert process.cluster.views.dead_man == ""
        process.cluster.last_byte = ZERO
        await passes(process, 300)
        assert (process.sent, process.cluster.views.dead_man) == (5, UNTOLD)
        process.cluster.last_byte = None
        await passes(process, 5)
        assert (process.sent, process.cluster.views.dead_man) == (6, "")


class Loop:
    """Runs it within the block."""

    def __init__(self, process: Watched) -> None:
        self._process = process

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._process.dead_man.run())
        await passes(self._process, 1)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_ping_is_one_request(tmp_path, method):
    """It arrives as configured; what is no success, a redirect among it, is a failure."""
    async with followed(tmp_path) as cluster, FaultServer(answers(200)) as monitor:
        url = f"{monitor.url}/ping/3f6f2c1e-secret"
        ping = Ping(Sender(cluster.clock), url=lambda: url, method=method)
        await ping.send()
        [request] = monitor.requests
        assert (request.method, request.path, request.body) == (
            method, "/ping/3f6f2c1e-secret", b"",
        )  # fmt: skip
        monitor.script += [answers(302, location=f"{monitor.url}/elsewhere"), answers(503)]
        for _ in range(2):
            with pytest.raises(SinkError) as failed:
                await ping.send()
            assert "3f6f2c1e" not in str(failed.value)
        assert len(monitor.requests) == 3
