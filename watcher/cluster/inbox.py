"""What waits between the readers of all scopes and the one consumer: the latest of each object."""

import asyncio
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from watcher.core.namespaces import NOTHING, Exclusion
from watcher.ports import Applied, Deleted, Listed, WatchEvent
from watcher.view import is_older


class Inbox:
    """Events in order; a newer one of an object takes the place of an older one.

    It cannot outgrow the number of objects, whatever the number of events; the deleted ones that
    nobody takes are bounded by `limit`, at which the readers wait. What is `excluded` does not get in.
    """

    def __init__(self, limit: int = 100_000, excluded: Exclusion = NOTHING) -> None:
        self._limit = limit
        self._excluded = excluded
        self._waiting: dict[object, WatchEvent] = {}
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    def put(self, events: Iterable[WatchEvent]) -> None:
        """Add events, the newest last; a replayed one pushes out none that is newer (W22)."""
        for event in map(self._wanted, events):
            if event is None:
                continue
            key = event.snapshot.uid if isinstance(event, Applied) else self._key(event)
            old = self._waiting.pop(key, None)
            if isinstance(old, Applied) and isinstance(event, Applied):
                version, known = event.snapshot.resource_version, old.snapshot.resource_version
                event = old if is_older(version, known) else event
            self._waiting[key] = event
        self._news.set()

    async def take(self) -> Sequence[WatchEvent]:
        """Wait for events and take them all."""
        await self._news.wait()
        self._news.clear()
        self._taken.set()
        taken, self._waiting = self._waiting, {}
        return tuple(taken.values())

    async def room(self) -> None:
        """Wait until the consumer has taken what is here, if that is too much."""
        while len(self._waiting) >= self._limit:
            self._taken.clear()
            await self._taken.wait()

    def _wanted(self, event: WatchEvent) -> WatchEvent | None:
        """Give what of the event is not of an excluded namespace."""
        out = self._excluded
        if not out.patterns:
            return event
        if isinstance(event, Listed):
            return replace(
                event, snapshots=tuple(s for s in event.snapshots if s.namespace not in out)
            )
        hidden = isinstance(event, Applied | Deleted) and event.snapshot.namespace in out
        return None if hidden else event

    def _key(self, event: WatchEvent) -> object:
        """Under what an event is kept; deletions and lists take out what they supersede."""
        if isinstance(event, Deleted):
            self._waiting.pop(event.snapshot.uid, None)
            return (Deleted, event.snapshot.uid)
        if isinstance(event, Listed):
            for key, old in list(self._waiting.items()):
                if old.scope == event.scope and isinstance(old, (Applied, Deleted, Listed)):
                    del self._waiting[key]
            return (Listed, event.scope)
        return ("stream", event.scope)
