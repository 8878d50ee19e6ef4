"""How long list and watch wait after a failure: tenacity's retrying, on our clock and no longer than needed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_base, wait_exponential

from watcher.cluster.transport import Timings
from watcher.errors import ClusterError, Throttled
from watcher.ports import Clock


class UpperHalf(wait_base):
    """Jitter: a wait drawn from the upper half of another one, so that many clients spread out."""

    def __init__(self, most: wait_base, uniform: Callable[[float, float], float]) -> None:
        self._most, self._uniform = most, uniform

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        most = self._most(retry_state)
        return self._uniform(most / 2, most)


class AsAsked(wait_base):
    """What the server asks for with Retry-After (RFC 9110 §10.2.3), up to a cap, if it asks at all."""

    def __init__(self, cap: float) -> None:
        self._cap = cap

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        asked = failure(retry_state).retry_after or timedelta()
        return min(asked.total_seconds(), self._cap)


class Longest(wait_base):
    """The longest of several waits."""

    def __init__(self, *waits: wait_base) -> None:
        self._waits = waits

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        return max(wait(retry_state) for wait in self._waits)


@dataclass(eq=False)
class Waits:
    """Of one list-watch: ever longer after each failure of a row, and at least as the server asks."""

    clock: Clock
    timings: Timings
    uniform: Callable[[float, float], float]
    failed: Callable[[ClusterError, int], None]
    """Told of each failure and the how manieth of its row it is, before the wait."""
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the present wait early."""
    _failures: int = 0
    """Of the present row."""
    _least: int = 0
    """What the next failure counts as in its row, if it is not further on by itself."""
    _forgiven: bool = False
    _busy_for: float = 0
    """Seconds that a server which is alive has asked to be left alone: no nudge ends those."""

    def __post_init__(self) -> None:
        exponential = wait_exponential(self.timings.backoff, self.timings.backoff_cap)
        self._asked = AsAsked(self.timings.retry_after_cap)
        self._wait = Longest(UpperHalf(exponential, self.uniform), self._asked)

    def row(self) -> AsyncRetrying:
        """Tries, with waits between them, up to the first that does not raise a ClusterError."""
        self._failures, self._forgiven = 0, False
        return AsyncRetrying(
            sleep=self._sit_out, wait=self._counted, before_sleep=self._before,
            retry=retry_if_exception_type(ClusterError), reraise=True,
        )  # fmt: skip

    def forgive(self) -> None:
        """Something real has come: if this try fails all the same, that is the first of a new row."""
        self._forgiven = True

    def count_as(self, in_a_row: int) -> None:
        """If this try fails, that is at least the so manieth failure, whatever has been forgiven."""
        self._least = in_a_row

    def answered(self, anew: bool) -> None:
        """Note that the API server answers: with it, or `anew`, the first wait is over.

        A watch that goes on failing while the server answers everybody else waits as it has to.
        """
        if anew or self._failures <= 1:
            self._nudged.set()

    def _counted(self, state: RetryCallState) -> float:
        failures = 1 if self._forgiven else state.attempt_number
        state.attempt_number = self._failures = max(failures, self._least)
        self._forgiven, self._least = False, 0
        return self._wait(state)

    def _before(self, state: RetryCallState) -> None:
        error = failure(state)
        self._nudged.clear()
        # It lives, so nobody knows better than it does.
        self._busy_for = self._asked(state) if isinstance(error, Throttled) else 0
        self.failed(error, self._failures)

    async def _sit_out(self, seconds: float) -> None:
        until = self.clock.now() + timedelta(seconds=seconds)
        if self._busy_for:
            await self.clock.sleep(self._busy_for)
        await self.clock.wait(self._nudged, until)


def failure(state: RetryCallState) -> ClusterError:
    """What a try ended with that is tried again."""
    error = state.outcome and state.outcome.exception()
    if not isinstance(error, ClusterError):
        raise TypeError("only a ClusterError is tried again")
    return error
