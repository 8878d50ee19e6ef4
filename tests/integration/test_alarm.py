"""That the store fails, and its end, is told once, directly, and by the one that was the writer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.deliveries import NOW
from tests.fault_server import FaultServer, answers
from watcher.alarm import StoreAlarm
from watcher.app import Process, run
from watcher.config.load import load
from watcher.core.delivery import Outcome
from watcher.core.model import Json
from watcher.errors import SinkError
from watcher.ports import Notification, Sink, Traits
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.http import Sender
from watcher.sinks.pagerduty import PagerDuty
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.clock import ManualClock
from watcher.view import View


class Ear:
    """A sink that keeps what it hears, or is deaf."""

    def __init__(self, deaf: bool = False) -> None:
        self.traits = Traits("deaf" if deaf else "ear")
        self.heard: list[Notification] = []
        self.deaf = deaf

    async def send(self, notification: Notification) -> Json | None:
        self.heard.append(notification)
        if self.deaf:
            raise SinkError("refused", Outcome.RETRY)
        return None


FAILING, RESTORED = "store.failing", "store.restored"


@pytest.fixture
async def alarm() -> AsyncIterator[Callable[..., Awaitable[tuple[View, ManualClock]]]]:
    """Starts one for these sinks, in a process that is the writer."""
    async with asyncio.TaskGroup() as group:
        running: list[asyncio.Task[None]] = []

        async def start(*sinks: Sink) -> tuple[View, ManualClock]:
            view, clock = View(leading=True), ManualClock(NOW)
            running.append(group.create_task(StoreAlarm(view, sinks, clock).run()))
            return view, clock

        yield start
        for task in running:
            task.cancel()


@pytest.mark.parametrize(
    ("leading", "course", "told"),
    [
        pytest.param(True, [("full", 30)], [FAILING], id="fails"),
        pytest.param(True, [("full", 30), (None, 20)], [FAILING, RESTORED], id="works again"),
        pytest.param(True, [("full", 8), (None, 5), ("full", 8)], [], id="for moments"),
        pytest.param(
            True, [("full", 30), (None, 5), ("full", 30), (None, 20)], [FAILING, RESTORED],
            id="works for a moment",
        ),
        pytest.param(
            True, [("full", 30), (None, 15), ("full", 30)], [FAILING, RESTORED, FAILING],
            id="again after a while",
        ),
        pytest.param(True, [("full", 6), ("still full", 6)], [FAILING], id="in other words"),
        pytest.param(False, [("away", 30), (None, 20)], [], id="on standby"),
    ],
)  # fmt: skip
async def test_the_alarm(alarm, leading, course, told):
    """After ten seconds, once each time, and so its end, whatever one of the sinks makes of it."""
    deaf, ear = Ear(deaf=True), Ear()
    view, clock = await alarm(deaf, ear)
    view.store_error, view.leading = None, leading
    await clock.advance(5)
    for error, seconds in course:
        view.store_error = error
        if error:
            view.leading = False  # a writer that cannot reach the store may be one no more
        await clock.advance(seconds)
        view.leading = leading
    for sink in (deaf, ear):
        assert [one.event.type for one in sink.heard] == told
    assert all("full" in one.message.text for one in ear.heard if one.event.type == FAILING)


async def test_a_store_that_never_answered(alarm):
    """Nobody knows of another writer then, so it is told."""
    ear = Ear()
    _, clock = await alarm(ear)
    await clock.advance(15)
    assert [one.event.type for one in ear.heard] == [FAILING]


async def test_another_replica_goes_on(alarm):
    """Whoever told that the store fails tells the end too, although it writes no more."""
    ear = Ear()
    view, clock = await alarm(ear)
    await clock.advance(15)
    view.store_error, view.leading = None, False
    await clock.advance(15)
    assert [one.event.type for one in ear.heard] == [FAILING, RESTORED]
    text = ear.heard[-1].message.text
    assert text.startswith(
        "Restored: the watcher's store. It failed 12:00:00\N{EN DASH}12:00:16 UTC"
    )


async def test_an_end_that_did_not_arrive_is_told_again(alarm):
    """The sink was away with the store: after a minute, five and half an hour it is tried again."""
    deaf = Ear(deaf=True)
    view, clock = await alarm(deaf)
    await clock.advance(15)
    view.store_error = None
    await clock.advance(100)
    assert [one.event.type for one in deaf.heard] == [FAILING, RESTORED, RESTORED]
    deaf.deaf = False
    await clock.advance(4000)
    assert [one.event.type for one in deaf.heard] == [FAILING, *[RESTORED] * 3], "until it has it"


async def test_no_alert_stays_open(alarm):
    """PagerDuty resolves what was triggered, Alertmanager ends the alert that fires."""
    async with FaultServer(answers(202)) as pager, FaultServer(answers(200)) as peer:
        clock = ManualClock(NOW)
        sender = Sender(clock)
        view, clock = await alarm(
            PagerDuty("pager", sender, routing_key=lambda: "k", url=pager.url),
            Alertmanager("am", sender, urls=[lambda: peer.url]),
        )
        for error, requests in (("full", 1), (None, 2)):
            view.store_error = error
            await clock.advance(15)
            async with asyncio.timeout(5):
                while min(len(pager.requests), len(peer.requests)) < requests:
                    await clock.advance(0)
    told = [json.loads(request.body) for request in pager.requests]
    assert [one["event_action"] for one in told] == ["trigger", "resolve"]
    assert len({one["dedup_key"] for one in told}) == 1
    (fires, *_), ended = (json.loads(request.body) for request in peer.requests)
    same = [one for one in ended if one["labels"] == fires["labels"]]
    assert [one["startsAt"] for one in same] == [fires["startsAt"]]
    assert same[0]["endsAt"] < fires["endsAt"]


async def test_a_moment_of_trouble_is_told_to_nobody(tmp_path: Path) -> None:
    """A store that was away when the lease was renewed, and is back at once, is soon known to work."""
    server, clock, stop = FakeApiServer(), ManualClock(NOW), asyncio.Event()
    await server.start()
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    store, aside = tmp_path / "watcher.db", tmp_path / "aside"
    variables = {
        "WATCHER_CLUSTERS": json.dumps([{"kubeconfig": str(tmp_path / "kubeconfig")}]),
        "WATCHER_STORE__URL": f"sqlite:///{store}",
        "WATCHER_WEB__ADDRESS": "127.0.0.1:0",
    }
    begun = asyncio.get_running_loop().create_future()
    config = load(None, variables, {})
    running = asyncio.create_task(run(config, clock=clock, ready=begun.set_result, stop=stop))
    process: Process = await begun

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # noqa: TID251 - real sockets and files

    view = process.view
    await until(lambda: view.leading and view.clusters["default"].fresh(clock.now()))
    store.rename(aside)
    store.touch()
    await clock.advance(3)
    await until(lambda: view.store_error is not None)
    aside.replace(store)
    await clock.advance(5)
    await until(lambda: view.store_error is None)
    stop.set()
    await running
    await server.stop()
