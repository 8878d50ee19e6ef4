"""A live process whose loops have died is impossible: whatever ends one ends the process, and says so."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from watcher.app import run
from watcher.config.load import load
from watcher.testing.apiserver import FakeApiServer
from watcher.testing.clock import ManualClock


class Cursed(ManualClock):
    """A clock that strikes down one loop, as a bug in it would, when that waits for the next time."""

    def __init__(self, loop: str, error: Callable[[], BaseException]) -> None:
        super().__init__(datetime(2026, 3, 1, tzinfo=UTC))
        self._loop = loop
        self._error = error

    async def sleep(self, seconds: float) -> None:
        self._strike()
        await super().sleep(seconds)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        self._strike()
        return await super().wait(event, until)

    def _strike(self) -> None:
        if sys._getframe(2).f_code.co_qualname == self._loop:
            raise self._error()


@pytest.fixture
async def config(tmp_path):
    """A process that follows one Deployment and tells the console."""
    server = FakeApiServer()
    await server.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(server.kubeconfig()))
    variables = {
        "WATCHER_CLUSTERS": json.dumps([{"kubeconfig": str(kubeconfig)}]),
        "WATCHER_STORE__URL": f"sqlite:///{tmp_path}/watcher.db",
        "WATCHER_WEB__ADDRESS": "127.0.0.1:0",
    }
    yield load(None, variables, {})
    await server.stop()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize(
    ("loop", "name"),
    [
        ("Process._check_store", "store"),
        ("Dispatcher.run", "sink console"),
        ("Follower.keep_time", "Follower.keep_time"),
        ("Follower.probe", "Follower.probe"),
    ],
)
async def test_a_loop_that_ends_ends_the_process(config, loop, name, error):
    """An error in a loop ends it, and so does a cancellation that nobody asked for."""
    with pytest.RaisesGroup(
        pytest.RaisesExc((ZeroDivisionError, RuntimeError)), flatten_subgroups=True
    ) as died:
        await run(config, clock=Cursed(loop, error))
    [why] = flat(died.value)
    if error is asyncio.CancelledError:
        assert str(why) == f"the loop {name} has ended, which it never should"


def flat(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for each in group.exceptions:
        yield from flat(each) if isinstance(each, BaseExceptionGroup) else (each,)
