"""That the store fails is told once, directly, and by the one that was the writer."""

import asyncio
import contextlib

import pytest

from tests.deliveries import NOW
from watcher.alarm import StoreAlarm
from watcher.core.model import Json, Outcome
from watcher.errors import SinkError
from watcher.ports import Notification, Traits
from watcher.testing.clock import ManualClock
from watcher.view import View


class Ear:
    """A sink that keeps what it hears, or is deaf."""

    def __init__(self, deaf: bool = False) -> None:
        self.traits = Traits("deaf" if deaf else "ear")
        self.heard: list[Notification] = []
        self._deaf = deaf

    async def send(self, notification: Notification) -> Json | None:
        self.heard.append(notification)
        if self._deaf:
            raise SinkError("refused", Outcome.RETRY)
        return None


@pytest.mark.parametrize(
    ("leading", "course", "told"),
    [
        pytest.param(True, [("disk full", 30)], 1, id="fails"),
        pytest.param(True, [("disk full", 8), (None, 5), ("disk full", 8)], 0, id="for moments"),
        pytest.param(True, [("full", 30), (None, 5), ("full", 30)], 2, id="again after a while"),
        pytest.param(True, [("full", 6), ("still full", 6)], 1, id="in other words"),
        pytest.param(False, [("away", 30)], 0, id="on standby"),
    ],
)
async def test_the_alarm(leading: bool, course: list[tuple[str | None, int]], told: int) -> None:
    """After ten seconds, once each time, whatever one of the sinks makes of it."""
    view, clock, sinks = View(), ManualClock(NOW), [Ear(deaf=True), Ear()]
    view.store_error, view.leading = None, leading
    running = asyncio.create_task(StoreAlarm(view, sinks, clock).run())
    await clock.advance(5)
    for error, seconds in course:
        view.store_error = error
        if error:
            view.leading = False  # a writer that cannot reach the store may be one no more
        await clock.advance(seconds)
        view.leading = leading
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert [len(sink.heard) for sink in sinks] == [told, told]
    for notification in sinks[1].heard:
        assert notification.event.type == "store.failing"
        assert "full" in notification.message.text


async def test_a_store_that_never_answered() -> None:
    """Nobody knows of another writer then, so it is told."""
    view, clock, ear = View(), ManualClock(NOW), Ear()
    running = asyncio.create_task(StoreAlarm(view, [ear], clock).run())
    await clock.advance(15)
    running.cancel()
    assert len(ear.heard) == 1
