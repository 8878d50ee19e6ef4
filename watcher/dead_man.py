"""The ping that a dead-man monitor waits for: it stays away when an outage might go untold."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from watcher.core.delivery import DeliveryState
from watcher.errors import SinkError, StoreError
from watcher.ports import Clock, Queued, Store
from watcher.reporting import Reporting
from watcher.view import ClusterView, View

_STUCK_AFTER: Final = timedelta(minutes=5)
"""A queue that stands still for so long, although its sink has no trouble, moves no more."""
_LOOK_AGAIN: Final = timedelta(seconds=5)
_QUEUED: Final = frozenset({DeliveryState.PENDING, DeliveryState.INFLIGHT})


@dataclass
class DeadMan:
    """Pings at an interval while whatever is to be told could be: design §1, P6.

    `ping` sends one and raises SinkError; `sinks` are the names of those who are told.
    """

    ping: Callable[[], Awaitable[None]]
    interval: timedelta
    sinks: Collection[str]
    queue_cap: int
    view: View
    store: Store
    clock: Clock
    reporting: Reporting
    _standing: dict[str, tuple[object, datetime]] = field(default_factory=dict)
    """How long each sink's queue has been just as it is."""

    async def run(self) -> None:
        """Ping or withhold until cancelled; what is only wrong for a moment withholds nothing."""
        soon = min(self.interval, _LOOK_AGAIN).total_seconds()
        while True:
            reason = await self.trouble()
            if reason and not self.view.dead_man:
                await self.clock.sleep(soon)  # a watch that is being renewed, say
                reason = await self.trouble()
            self.reporting.dead_man(reason)
            sent = not reason and await self._sent()
            await self.clock.sleep(self.interval.total_seconds() if sent else soon)

    async def trouble(self) -> str:
        """Why there must be no ping now; empty when there may be."""
        now = self.clock.now()
        if self.view.store_error:
            return f"the store does not write: {self.view.store_error}"
        try:
            for cluster in self.view.clusters.values():
                if not cluster.fresh(now) and not await self._is_told(cluster):
                    return f"cluster {cluster.name} is out of sight, and nobody has been told yet"
            queue = [row for row in await self.store.queue() if row[0] in self.sinks]
        except StoreError as error:
            return f"the store does not answer: {error}"
        if self.view.sink_troubles.keys() >= set(self.sinks):
            return "no sink can be reached"
        if sum(count for _, _, count, _ in queue) >= self.queue_cap:
            return "the queue is full"
        stuck = self._stuck(queue, now)
        return f"the queue of {', '.join(stuck)} does not move" if stuck else ""

    async def _is_told(self, cluster: ClusterView) -> bool:
        if cluster.incident is None:
            return False
        rows = await self.store.history(incident=cluster.incident.id)
        return any(row.delivery.state is DeliveryState.DELIVERED for row in rows)

    def _stuck(self, rows: Sequence[Queued], now: datetime) -> list[str]:
        """Sinks whose queue has not changed for minutes, though they fail at nothing."""
        queues: dict[str, list[object]] = {}
        for sink, state, count, oldest in rows:
            if state in _QUEUED and sink not in self.view.sink_troubles:
                queues.setdefault(sink, []).append((state, count, oldest))
        before, self._standing = self._standing, {}
        for sink, queue in queues.items():
            known, since = before.get(sink, (None, now))
            self._standing[sink] = (queue, since if known == queue else now)
        return [s for s, (_, since) in self._standing.items() if now - since >= _STUCK_AFTER]

    async def _sent(self) -> bool:
        error: SinkError | None = None
        try:
            await self.ping()
        except SinkError as refused:
            error = refused
        self.reporting.pinged(error)
        return error is None
