"""Waiting on real time."""

import asyncio
from datetime import timedelta

import pytest
import time_machine

from watcher.clock import SystemClock


async def test_a_cancellation_is_not_lost() -> None:
    """A loop that is woken and cancelled at the same moment ends: a shutdown must not hang."""
    clock, event = SystemClock(), asyncio.Event()

    async def loop() -> None:
        while True:
            event.clear()
            await clock.wait(event, None)

    running = asyncio.create_task(loop())
    await asyncio.wait([running], timeout=0.01)
    event.set()
    await asyncio.sleep(0)  # noqa: TID251 - until the loop's wait has been told, and no further
    running.cancel()
    assert (await asyncio.wait([running], timeout=5))[0]


async def test_it_waits_for_the_event_or_the_time() -> None:
    """True tells that the event came, False that the time did."""
    clock, event = SystemClock(), asyncio.Event()
    assert not await clock.wait(event, clock.now() + timedelta(milliseconds=5))
    assert not await clock.wait(event, clock.now() - timedelta(days=1))
    event.set()
    assert await clock.wait(event, clock.now() - timedelta(days=1))
    assert await clock.wait(event, None)


@pytest.mark.parametrize("minutes", [-10, 10])
def test_deadlines_do_not_step(minutes):
    """Row 47: F42: what deadlines are counted in goes on as before, whatever somebody sets the time to."""
    clock = SystemClock()
    before = clock.now()
    with time_machine.travel(clock.wall() + timedelta(minutes=minutes), tick=True):
        assert abs(clock.now() - before) < timedelta(seconds=5)
        assert abs(clock.wall() - before) > timedelta(minutes=9)
