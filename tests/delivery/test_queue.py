"""What waits, in which order it goes, and what becomes of it when the process ends."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from tests.controlplane.watcher_process import ROOT
from tests.deliveries import NOW, event, told
from tests.delivery.rig import Recording, rig
from watcher.clock import SystemClock
from watcher.core.delivery import Part
from watcher.core.model import Json
from watcher.dispatcher import Dispatcher
from watcher.ports import Notification
from watcher.sinks.http import Sender
from watcher.sinks.slack import SlackBot
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.testing.slack import CHANNEL, FakeSlack


async def test_ten_thousand_wait_at_the_start(tmp_path: Path) -> None:
    """Row 36: within seconds the newest goes first, at the pace that its sink bears."""
    store = open_store(f"sqlite:///{tmp_path / 'watcher.db'}")
    every = [event(number) for number in range(10_000)]
    await store.record(told(*every, sink="chat", parts=(Part.POST,)), NOW)
    await store.close()
    sink = Recording("chat", chat=True, threads=True, rate=1.0, concurrency=1)
    clock = ManualClock(NOW)
    began = time.perf_counter()
    async with rig(tmp_path, sink, clock=clock) as it:
        await it.passes(0)
        assert time.perf_counter() - began < 5
        assert len(sink.sent) == 5, "a burst"
        await it.passes(20)
    assert len(sink.sent) == 25
    assert [one.event.subject.name for one in sink.sent] == [
        f"app-{number}" for number in range(9999, 9974, -1)
    ]


async def test_an_idle_system_tells_within_two_seconds(tmp_path: Path) -> None:
    """Row 78: from the commit to the message in Slack, twenty times."""
    clock = SystemClock()
    async with FakeSlack(clock) as slack:
        sink = SlackBot(
            "oncall", Sender(clock), token=lambda: slack.token, channel=CHANNEL,
            api_url=slack.api_url,
        )  # fmt: skip
        sink.traits = replace(sink.traits, rate=0)
        async with rig(tmp_path, sink) as it:
            dispatcher = Dispatcher(sink, it.store, clock, it.reporting)
            running = asyncio.create_task(dispatcher.run())
            took = []
            for number in range(20):
                began = clock.now()
                one = told(event(number), sink="oncall", parts=(Part.POST,))
                await it.store.record(one, clock.now())
                dispatcher.wake()
                async with asyncio.timeout(5):
                    while len(slack.messages) <= number:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)  # noqa: TID251 - a real socket
                took.append(clock.now() - began)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert sorted(took)[18] < timedelta(seconds=2)


CONSOLE = """
import asyncio, sys
from tests.events import event, notification
from watcher.core.events import Edge
from watcher.errors import SinkError
from watcher.sinks.console import Console

async def main():
    console = Console()
    huge = notification(event(Edge.DEGRADED, message="x" * 3000))
    print("ready", file=sys.stderr, flush=True)
    for _ in range(100):
        try:
            async with asyncio.timeout(0.2):
                await console.send(huge)
        except TimeoutError:
            break
    try:
        await console.send(huge)
    except SinkError as error:
        print(error.reason, file=sys.stderr, flush=True)
    await asyncio.to_thread(lambda: print("pool is free", file=sys.stderr, flush=True))
    sys.stdin.readline()

asyncio.run(main())
"""


def test_a_console_that_nobody_reads(tmp_path: Path) -> None:
    """Its full pipe takes no thread from others, starts no second one, and does not hold up the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CONSOLE], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert [process.stderr.readline().strip() for _ in range(3)] == [
        "ready", "blocked", "pool is free",
    ]  # fmt: skip
    process.communicate("\n", timeout=5)
    assert process.returncode == 0


async def test_sigterm_with_a_full_queue(tmp_path: Path) -> None:
    """Row 26: what is under way is finished, a hundred rows stay, and the next start goes on."""
    started, finish = asyncio.Event(), asyncio.Event()

    class Slow(Recording):
        async def send(self, notification: Notification) -> Json | None:
            started.set()
            await finish.wait()
            return await super().send(notification)

    slow = Slow("hook", concurrency=1)
    async with rig(tmp_path, slow) as it:
        await it.opens(*(f"web-{number:03}" for number in range(101)))
        dispatcher = Dispatcher(slow, it.store, it.clock, it.reporting)
        running = asyncio.create_task(dispatcher.run())
        await asyncio.wait_for(started.wait(), 5)
        running.cancel()
        finish.set()
        await asyncio.gather(running, return_exceptions=True)
        states = list((await it.states("hook")).values())
    assert (states.count("delivered"), states.count("pending")) == (1, 100)
    again = Recording("hook")
    async with rig(tmp_path, again) as it:
        await it.passes(5)
        assert set((await it.states("hook")).values()) == {"delivered"}
    assert len(again.sent) == 100


async def test_a_digest_of_a_removed_sink_comes_back_as_one_post(tmp_path: Path) -> None:
    """Row 69: members that ended while the sink was away are one message when it returns."""
    names = [f"web-{number}" for number in range(11)]
    chat = Recording("chat", chat=True, threads=True)
    async with rig(tmp_path, chat, Recording("hook")) as it:
        await it.opens(*names, storm=True)
        await it.passes(30)
    clock = it.clock
    hook = Recording("hook")
    async with rig(tmp_path, hook, clock=clock) as later:
        await later.resumes(it.incidents)
        it = later
        await it.ends(*names)
        await it.passes(30)
        await it.store.strand(["hook"])
        assert sorted((await it.states("chat")).values()).count("parked") == 1
    back = Recording("chat", chat=True, threads=True)
    async with rig(tmp_path, back, Recording("hook"), clock=clock) as it:
        await it.passes(30)
        assert "parked" not in (await it.states("chat")).values()
    (one,) = back.sent
    assert one.message.title.startswith("11 Deployments were degraded in prod: 11 recovered")
