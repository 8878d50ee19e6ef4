"""Loops that are exchanged while others go on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from watcher.loops import Exchange


class Sends:
    """What a loop did, in order; ended, it finishes something first."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.may_finish = asyncio.Event()

    def loop(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            self.said.append(f"{name} begins")
            try:
                await asyncio.Event().wait()
            finally:
                await self.may_finish.wait()
                self.said.append(f"{name} has finished")

        return run


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)  # noqa: TID251 - yields to the loop, waits for nothing


async def test_what_is_for_the_same_goes_on() -> None:
    """Another of its name begins when the former has finished, the last one wanted, and no other."""
    sends, exchange = Sends(), Exchange()
    exchange.want({"a": (1, sends.loop("a")), "b": (1, sends.loop("b"))})
    running = asyncio.create_task(exchange.run())
    await settle()
    exchange.want({"a": (1, sends.loop("a again")), "b": (2, sends.loop("b anew"))})
    await settle()
    exchange.want({"a": (1, sends.loop("a again")), "b": (3, sends.loop("b at last"))})
    await settle()
    assert sends.said == ["a begins", "b begins"]
    sends.may_finish.set()
    await settle()
    assert sends.said[2:] == ["b has finished", "b at last begins"]
    exchange.want({"b": (3, sends.loop("b"))})
    await settle()
    assert sends.said[4:] == ["a has finished"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sends.said[5:] == ["b at last has finished"]


async def test_it_begins_anew() -> None:
    """In the next term everything that is wanted by then runs."""
    sends, exchange = Sends(), Exchange()
    sends.may_finish.set()
    exchange.want({"a": (1, sends.loop("a"))})
    for _ in range(2):
        running = asyncio.create_task(exchange.run())
        await settle()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert sends.said == ["a begins", "a has finished"] * 2


async def test_a_loop_that_ends_is_a_fault() -> None:
    """It ends all the others, and so the process."""

    async def ends() -> None:
        await asyncio.sleep(0)  # noqa: TID251 - it is to end

    sends, exchange = Sends(), Exchange()
    sends.may_finish.set()
    exchange.want({"a": (1, sends.loop("a")), "b": (1, ends)})
    with pytest.raises(ExceptionGroup) as died:
        await exchange.run()
    assert "the loop b has ended" in str(died.value.exceptions[0])
    assert sends.said == ["a begins", "a has finished"]
