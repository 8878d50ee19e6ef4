"""An event loop whose time jumps ahead when nothing is left to do: hours of real waits in a second.

Sockets, threads and every `asyncio.timeout` are the real ones, and all of them see the same time.
"""

import asyncio
import functools
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

from watcher.clock import SystemClock

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_AT_WORK = ("(call)", "(_do_shutdown)")
"""Threads of ours, and the one in which a loop that is closed waits for its own."""
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class _Selector(selectors.DefaultSelector):
    """Waits for sockets only if a thread is at work, and counts what it did not wait."""

    ahead = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        names = [thread.name for thread in threading.enumerate()]
        ready = super().select(0)  # also of a thread that has ended since
        if ready:
            return ready
        if self.threads or any(name.endswith(_AT_WORK) for name in names):
            return super().select(min(timeout, 0.001))
        self.ahead += timeout  # what loopback carries has arrived
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._warp = _Selector()
        super().__init__(self._warp)

    def time(self) -> float:
        return super().time() + self._warp.ahead

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        self._warp.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: object) -> None:
        self._warp.threads -= 1


class WarpedClock(SystemClock):
    """The loop's time as a date."""

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time() - self._began)

    def wall(self) -> datetime:
        return self.now()

    @functools.cached_property
    def _began(self) -> float:
        return asyncio.get_running_loop().time()


def warped(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async test on such a loop."""

    @functools.wraps(test)
    def run(*args: P.args, **options: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            return runner.run(test(*args, **options))

    return run
