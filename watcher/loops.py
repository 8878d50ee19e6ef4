"""Loops that never end: one that does is a fault."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

Loop = Callable[[], Coroutine[Any, Any, None]]
"""Called in the very task that awaits it: a task that is cancelled before leaves nothing behind."""


async def never_ends(name: str, loop: Loop) -> None:
    """A group takes no notice of a task that was cancelled; one that nobody cancelled has died."""
    with contextlib.suppress(asyncio.CancelledError):
        await loop()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    raise RuntimeError(f"the loop {name} has ended, which it never should")
