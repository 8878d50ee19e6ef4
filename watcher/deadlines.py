"""When time alone calls for a Deployment to be judged: one entry for each, the earliest first."""

import heapq
from datetime import datetime

from watcher.core import annotations, transitions
from watcher.core.phases import Firing, Steady
from watcher.view import Tracked


class Deadlines:
    """What is due when. An entry that turns out too early is put back when it comes up."""

    def __init__(self) -> None:
        self._entries: list[tuple[datetime, str]] = []

    @property
    def earliest(self) -> datetime | None:
        """When the first is due; None if none is."""
        return self._entries[0][0] if self._entries else None

    def keep(self, t: Tracked) -> None:
        """Have it come up at its deadline, or before."""
        at = due(t)
        if at is not None and (t.scheduled is None or at < t.scheduled):
            t.scheduled = at
            heapq.heappush(self._entries, (at, t.snapshot.uid))

    def show(self, now: datetime) -> list[str]:
        """The uids that have come up; they stay."""
        if not self._entries or self._entries[0][0] > now:
            return []
        return [uid for at, uid in self._entries if at <= now]

    def take(self, now: datetime) -> list[str]:
        """The uids that have come up, each once, the earliest first."""
        taken: dict[str, None] = {}
        while self._entries and self._entries[0][0] <= now:
            taken[heapq.heappop(self._entries)[1]] = None
        return list(taken)


def due(t: Tracked) -> datetime | None:
    """When its phase, its verdict or a silence comes to an end by itself."""
    if isinstance(t.phase, Steady):
        return t.verdict.until
    silence: datetime | None = None
    if isinstance(t.phase, Firing) and t.phase.incident.silenced:
        silence = annotations.read(t.snapshot.annotations).silence_until
    waits = (transitions.deadline(t.phase), t.verdict.until, silence)
    return min(filter(None, waits), default=None)
