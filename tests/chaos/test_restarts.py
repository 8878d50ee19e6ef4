"""Ended and started again with much to send, named by the rows of the delivery reference's acceptance table."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import deliveries as make
from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.deliveries import told
from tests.outside import Outside
from watcher.clock import SystemClock
from watcher.core.delivery import DeliveryState
from watcher.core.ledger import LedgerRow
from watcher.ports import Record
from watcher.stores.database import open_store


@pytest.fixture
def watcher(world: Outside, tmp_path: Path) -> Iterator[WatcherProcess]:
    made = WatcherProcess(tmp_path, world.config(tmp_path))
    yield made
    made.stop()


def queue(folder: Path, count: int) -> None:
    """Let so many incidents wait to be told, a higher number being a newer one."""

    async def fill() -> None:
        store = open_store(f"sqlite:///{folder / 'watcher.db'}")
        records = [told(make.event(number)) for number in range(count)]
        events = tuple(event for record in records for event in record.events)
        deliveries = tuple(one for record in records for one in record.deliveries)
        await store.record(Record((), (), events, deliveries), SystemClock().wall())
        await store.close()

    asyncio.run(fill())


def ledger(folder: Path) -> list[LedgerRow]:
    async def read() -> list[LedgerRow]:
        store = open_store(f"sqlite:///{folder / 'watcher.db'}")
        try:
            return list(await store.history(limit=100_000))
        finally:
            await store.close()

    return asyncio.run(read())


def delivered(folder: Path) -> int:
    return sum(row.delivery.state is DeliveryState.DELIVERED for row in ledger(folder))


def test_row_26_asked_to_end_while_it_sends(
    world: Outside, watcher: WatcherProcess, tmp_path: Path
) -> None:
    """What is under way is finished and settled, the rest waits for the next start, nothing comes twice."""
    queue(tmp_path, 100)
    world.hold()
    watcher.start_fresh()
    eventually(lambda: len(world.taken) == 4)
    began = time.monotonic()
    watcher.ask_to_end()
    time.sleep(1)
    world.let_go()
    assert watcher.terminate() == 0
    assert time.monotonic() - began < 10
    assert delivered(tmp_path) == len(world.taken) == 4
    watcher.start_fresh()
    eventually(lambda: len(world.taken) >= 100)
    watcher.terminate()
    assert delivered(tmp_path) == 100
    assert len({one.id for one in world.taken}) == len(world.taken) == 100


def test_row_36_ten_thousand_are_waiting(
    world: Outside, watcher: WatcherProcess, tmp_path: Path
) -> None:
    """It is ready all the same, long before they are told, and begins with the newest.

    Four are on their way at once, and may overtake one another.
    """
    queue(tmp_path, 10_000)
    watcher.start_fresh()
    assert len(world.taken) < 9_000
    eventually(lambda: len(world.taken) >= 20)
    names = [one.body["subject"].rpartition("-")[2] for one in world.taken[:20]]
    assert {int(name) for name in names} <= set(range(9_976, 10_000))
