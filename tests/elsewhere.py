"""An event loop in a thread of its own, so that a test may block while what it serves goes on."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LIMIT = 10
"""Seconds that anything may take there."""


@contextlib.contextmanager
def loop_elsewhere(name: str) -> Iterator[asyncio.AbstractEventLoop]:
    """Until the block ends: what still runs there is then cancelled, and has ended."""
    begun = concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def live() -> None:
        over = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name=name, daemon=True)
    thread.start()
    loop, over = begun.result(LIMIT)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@contextlib.contextmanager
def entered(
    context: contextlib.AbstractAsyncContextManager[T], loop: asyncio.AbstractEventLoop
) -> Iterator[T]:
    """Enter and leave `context` in that loop."""

    def call(step: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(step, loop).result(LIMIT)

    stack = contextlib.AsyncExitStack()
    made = call(stack.enter_async_context(context))
    try:
        yield made
    finally:
        call(stack.aclose())
