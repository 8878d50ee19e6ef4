"""How long list and watch wait after a failure, on a clock that is moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from watcher.cluster.transport import Timings
from watcher.cluster.waits import Waits
from watcher.errors import ClusterError, Protocol, Throttled, Unreachable
from watcher.testing.clock import ManualClock

START = datetime(2026, 3, 1, tzinfo=UTC)


class Tries:
    """One row of tries that fail with the given errors, and when each was made."""

    def __init__(self, errors: Sequence[ClusterError], draw: float = 1) -> None:
        self.clock = ManualClock(START)
        self.at: list[float] = []
        self.failed: list[int] = []
        self.waits = Waits(
            self.clock, Timings(), lambda low, high: low + draw * (high - low), self._failed
        )
        self._errors = iter(errors)

    def _failed(self, error: ClusterError, in_a_row: int) -> None:
        self.failed.append(in_a_row)

    async def run(self) -> None:
        async for attempt in self.waits.row():
            with attempt:
                self.at.append((self.clock.now() - START).total_seconds())
                for error in self._errors:
                    raise error


@asynccontextmanager
async def running(tries: Tries) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(tries.run())
    await tries.clock.settle()
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def after(error: type[ClusterError], seconds: float) -> ClusterError:
    return error("no", timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("draw", "at"),
    [
        pytest.param(1, [0, 0.8, 2.4, 5.6, 12, 24.8, 50.4, 80.4], id="longest"),
        pytest.param(0, [0, 0.4, 1.2, 2.8, 6, 12.4, 25.2, 40.2], id="shortest"),
    ],
)
async def test_waits_grow_up_to_a_cap(draw, at):
    """0.8 s, twice as long after each further failure up to 30 s, of which the draw spares up to half."""
    tries = Tries([Unreachable("no")] * 7, draw)
    async with running(tries) as task:
        await tries.clock.advance(100)
        assert task.done()
    assert tries.at == pytest.approx(at)
    assert tries.failed == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("error", "waited"),
    [
        pytest.param(after(Throttled, 7), 7, id="429"),
        pytest.param(after(Unreachable, 7), 7, id="503"),
        pytest.param(after(Throttled, 0.1), 0.8, id="ours is longer"),
        pytest.param(after(Throttled, 9999), 60, id="at most 60 s"),
    ],
)
async def test_waits_as_long_as_asked(error, waited):
    """Retry-After is kept, and so is our own wait."""
    tries = Tries([error])
    async with running(tries):
        await tries.clock.advance(100)
    assert tries.at == [0, waited]


async def test_a_nudge_ends_what_nobody_asked_for():
    """A server that is back is asked at once, whatever it said while it went down."""
    tries = Tries([after(Unreachable, 7)])
    async with running(tries):
        await tries.clock.advance(1)
        tries.waits.answered(anew=False)
        await tries.clock.advance(0)
    assert tries.at == [0, 1]


async def test_no_nudge_ends_what_a_live_server_asks_for():
    """One that is alive knows better than a probe that got through."""
    tries = Tries([after(Throttled, 7)])
    async with running(tries):
        await tries.clock.advance(1)
        tries.waits.answered(anew=True)
        await tries.clock.advance(10)
    assert tries.at == [0, 7]


async def test_only_a_server_that_returns_ends_a_later_wait():
    """A watch that fails while all others are answered waits as it has to."""
    tries = Tries([Unreachable("no")] * 2)
    async with running(tries):
        await tries.clock.advance(1)
        tries.waits.answered(anew=False)
        await tries.clock.advance(0)
        assert len(tries.at) == 2
        tries.waits.answered(anew=True)
        await tries.clock.advance(0)
    assert tries.at == [0, 0.8, 1]


async def test_something_real_starts_a_new_row():
    """The first failure after it waits like the first of all."""
    tries = Tries([Unreachable("no")] * 4)
    async with running(tries):
        await tries.clock.advance(3)
        tries.waits.forgive()
        await tries.clock.advance(10)
    assert tries.at == pytest.approx([0, 0.8, 2.4, 5.6, 6.4])
    assert tries.failed == [1, 2, 3, 1]


async def test_a_bug_is_no_failure():
    """What is no ClusterError ends the row, and so does a cancellation."""

    class Bug(Tries):
        async def run(self) -> None:
            async for attempt in self.waits.row():
                with attempt:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Bug([]).run()
    tries = Tries([Protocol("no")] * 3)
    async with running(tries) as task:
        task.cancel()
        await tries.clock.settle()
        assert task.cancelled()
