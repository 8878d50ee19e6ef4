"""Loops that never end: one that does is a fault. Some can be exchanged while the others go on."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

Loop = Callable[[], Coroutine[Any, Any, None]]
"""Called in the very task that awaits it: a task that is cancelled before leaves nothing behind."""


class Exchange:
    """Runs the loops that are wanted at the moment, each known by a name and by what it is for."""

    def __init__(self) -> None:
        self._wanted: Mapping[str, tuple[object, Loop]] = {}
        self._running: dict[str, tuple[object, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def want(self, loops: Mapping[str, tuple[object, Loop]]) -> None:
        """Run these from now on. One that is for the same as before goes on, any other is cancelled."""
        for name, (purpose, task) in list(self._running.items()):
            if name not in loops or loops[name][0] != purpose:
                task.cancel()
                del self._running[name]
        self._wanted = loops
        self._changed.set()

    async def run(self) -> None:
        """Run them until cancelled; one begins when a former one of its name has finished."""
        self._running.clear()
        turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

        async def in_turn(name: str, loop: Loop) -> None:
            async with turns[name]:
                await never_ends(name, loop)

        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for name, (purpose, loop) in self._wanted.items():
                    if name not in self._running:
                        self._running[name] = purpose, group.create_task(in_turn(name, loop))
                await self._changed.wait()


async def never_ends(name: str, loop: Loop) -> None:
    """A group takes no notice of a task that was cancelled; one that nobody cancelled has died."""
    with contextlib.suppress(asyncio.CancelledError):
        await loop()
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    raise RuntimeError(f"the loop {name} has ended, which it never should")
