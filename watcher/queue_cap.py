"""The cap of the queue: people are told before it is reached, and at it what nobody needs goes.

The cap is soft: what was decided is recorded above it too (docs/adr/0019).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from watcher.core.delivery import Part
from watcher.core.planning import Audience
from watcher.ports import Clock, Store
from watcher.reporting import Reporting
from watcher.trouble import Trouble

_FILLING: Final = 0.8
_ROOM_AGAIN: Final = 0.7


class QueueCap:
    """Looks at what waits for the sinks that are told, and shortens it where that tells nobody less.

    A reload may change `sinks` at any time.
    """

    def __init__(
        self, sinks: Sequence[Audience], store: Store, clock: Clock, reporting: Reporting
    ) -> None:
        self._sinks = sinks
        self._store = store
        self._clock = clock
        self._reporting = reporting
        self._trouble = Trouble("", store, sinks, reporting)
        self._left = 0
        """How many the last compaction left above the cap: it would find little more at once."""

    async def check(self, cap: int) -> None:
        """Tell when it fills and when it has room again, compact it at the cap. Raises StoreError."""
        self._trouble.restore(await self._store.load(""))
        waiting = await self._waiting()
        if waiting.total() < cap:
            self._left = 0
        elif waiting.total() >= self._left + cap // 20:
            await self._compact(Part.EDIT)  # what a newer edit tells as well
            if (await self._waiting()).total() >= cap:
                await self._compact(Part.POST)  # and what an unsent post will tell
            waiting = await self._waiting()
            self._left = waiting.total()
        share, now = waiting.total() / cap, self._clock.now()
        self._reporting.queue_filled(share)
        if share >= _FILLING:
            full = share >= 1
            await self._trouble.begins(_what(waiting, cap, full), now, now, critical=full)
        elif share < _ROOM_AGAIN:
            await self._trouble.ends(now)

    async def _waiting(self) -> Counter[str]:
        names, waiting = {sink.name for sink in self._sinks}, Counter[str]()
        for sink, _, count, _ in await self._store.queue():
            waiting[sink] += count if sink in names else 0
        return waiting

    async def _compact(self, part: Part) -> None:
        for sink in [sink.name for sink in self._sinks if sink.chat]:
            after, now = "", self._clock.now()
            while (page := await self._store.compact(sink, now, part, after))[1]:
                choices, after = page
                for choice in choices:
                    for delivery in choice.supersede:
                        self._reporting.superseded(choice.send, delivery)


def _what(waiting: Counter[str], cap: int, full: bool) -> str:
    [(sink, most)] = waiting.most_common(1)
    then = "Nothing is dropped, the record grows and the dead-man ping stays away"
    if not full:
        then = "At the cap chats keep only what is current, and the dead-man ping stays away"
    return (
        f"{waiting.total()} deliveries wait, {most} of them for {sink}, "
        f"and store.queue_cap is {cap}. {then}"
    )
