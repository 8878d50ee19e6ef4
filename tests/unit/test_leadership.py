"""Terms of the one writer: what ends one, and what ends the process."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.deployments import ZERO
from watcher.errors import Deposed
from watcher.leadership import Leadership
from watcher.ports import Store
from watcher.reporting import Reporting
from watcher.testing.clock import ManualClock


class Lease:
    """Always to be had."""

    terms = 0

    async def acquire(self) -> bool:
        self.terms += 1
        return True

    async def renew(self) -> None: ...

    async def release(self) -> None: ...


class Silent:
    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return lambda *_: None


DEPOSED = Deposed("another process is the writer")
BROKEN = RuntimeError("a loop has ended")


@pytest.mark.parametrize(
    ("ends", "terms"),
    [
        pytest.param([DEPOSED], 3, id="deposed"),
        pytest.param([ExceptionGroup("a sink", [DEPOSED])], 3, id="deposed while it sent"),
        pytest.param([ExceptionGroup("a sink", [DEPOSED]), BROKEN], 1, id="broken as well"),
    ],
)
async def test_only_a_fault_ends_the_process(ends: Sequence[Exception], terms: int) -> None:
    """Whoever notices first that the lease is lost, a term ends with it and nothing else does."""
    lease, begun = Lease(), asyncio.Event()
    leadership = Leadership(cast("Store", lease), ManualClock(ZERO), cast("Reporting", Silent()))

    async def term() -> None:
        if lease.terms == 3:
            begun.set()
            await asyncio.Event().wait()
        raise ExceptionGroup("the term", ends)

    running = asyncio.create_task(leadership.run(term))
    third = asyncio.create_task(begun.wait())
    await asyncio.wait({running, third}, return_when=asyncio.FIRST_COMPLETED)
    assert lease.terms == terms
    if terms == 1:
        third.cancel()
        with pytest.raises(ExceptionGroup) as died:
            await running
        assert died.value.subgroup(Deposed) is None
    else:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
