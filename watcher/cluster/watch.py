"""The list-watch of one scope, for ever: list, watch from there, watch again (watch.md W1-W25)."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from aiohttp import StreamReader

from watcher.cluster.decode import Bookmark, Status, Unreadable, decode_line
from watcher.cluster.inbox import Inbox, is_older
from watcher.cluster.lines import LineBuffer
from watcher.cluster.transport import Ask, Silent, Timings, Transport, error_for
from watcher.core.model import DeploymentSnapshot
from watcher.errors import ClusterError, Expired, Throttled, Unreachable
from watcher.ports import Applied, Broken, Clock, Deleted, Listed, Opened, WatchEvent

_LOG: Final = structlog.get_logger(__name__)
_BAD_IN_A_ROW: Final = 3
_SLEPT: Final = timedelta(seconds=30)
_FAILURES_UNTIL_POLLING: Final = 5
"""A watch that cannot be had this often is listed before every further try, so that the view
stays right (F47)."""


class ScopeWatch:
    """Follows one scope and puts what it sees into the inbox; ends only by being cancelled.

    It keeps no Deployment: what a list leaves out was deleted, and that is the consumer's to see.
    """

    def __init__(
        self,
        scope: str,
        cluster: str,
        selector: str,
        transport: Transport,
        inbox: Inbox,
        clock: Clock,
        timings: Timings,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.scope = scope
        self.last_byte_at: datetime | None = None
        self.lists: Counter[str] = Counter()
        """How many there were, by what made them necessary."""
        self.ends: Counter[str] = Counter()
        """How many lists and streams ended, by cause."""
        self.bad_lines = 0
        self._cluster = cluster
        self._selector = {"labelSelector": selector} if selector else {}
        self._transport = transport
        self._inbox = inbox
        self._clock = clock
        self._timings = timings
        self._uniform = uniform
        self._version = self._blind_by = ""
        self._failures = 0
        self._bookmarks = False
        self._bad_in_a_row = 0
        self._told_of: set[str] = set()
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """End the present backoff early; what the server asked to wait is still waited."""
        self._nudged.set()

    async def run(self) -> None:
        """List and watch until cancelled; every failure becomes a Broken and another try."""
        self._version, self._blind_by = "", "start"
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._stream()
            except ClusterError as error:
                await self._broke(error)
            else:
                self.ends["ended"] += 1
                self._inbox.put([Broken(self.scope, None)])
                await self._clock.sleep(self._uniform(*self._timings.pause))

    async def _broke(self, error: ClusterError) -> None:
        """Tell it, decide whether the version is still good, and wait."""
        self.ends[error.cause_label] += 1
        self._inbox.put([Broken(self.scope, error)])
        if isinstance(error, Silent):
            await self._clock.sleep(self._uniform(*self._timings.pause))
            return
        self._failures += 1
        hopeless = self._failures >= _FAILURES_UNTIL_POLLING and not isinstance(error, Throttled)
        if isinstance(error, Expired) or hopeless:
            self._version, self._blind_by = "", error.cause_label
        await self._back_off(error.retry_after or timedelta())

    async def _back_off(self, asked: timedelta) -> None:
        """Wait as long as the server asked for, and at least for our own jittered backoff."""
        timings, start = self._timings, self._clock.now()
        steps = min(self._failures - 1, 16)
        own = self._uniform(0, min(timings.backoff_cap, timings.backoff * 2**steps))
        await self._clock.sleep(min(asked.total_seconds(), timings.retry_after_cap))
        self._nudged.clear()
        await self._clock.wait(self._nudged, start + timedelta(seconds=own))

    async def _list(self) -> None:
        """Take a complete list, or nothing: half a list would pass for deletions (W2, W3)."""
        self.lists[self._blind_by] += 1
        try:
            version, snapshots = await self._pages(limit=self._timings.page)
        except _TokenExpired:
            version, snapshots = await self._pages(limit=0)
        self._inbox.put([Listed(self.scope, snapshots)])
        self._version = version

    async def _pages(self, limit: int) -> tuple[str, tuple[DeploymentSnapshot, ...]]:
        """Follow `continue` to the end; the version is not asked for, so the list is consistent."""
        ask, found = Ask("list", self.scope), list[DeploymentSnapshot]()
        params = {**self._selector, "limit": str(limit)} if limit else self._selector
        page = await self._transport.page(ask, params, self._cluster)
        version = page.version
        while page.next:
            found += page.snapshots
            try:
                following = {**params, "continue": page.next}
                page = await self._transport.page(ask, following, self._cluster)
            except Expired as error:
                raise _TokenExpired(str(error), error.retry_after) from None
        return version, (*found, *page.snapshots)

    async def _stream(self) -> None:
        """Watch once; returns on the orderly end and raises ClusterError on any other."""
        ask, lines = Ask("watch", self.scope), LineBuffer(self._timings.line_bytes)
        seconds = round(self._uniform(*self._timings.watch))
        params = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": self._version,
        }
        before = self._version
        async with self._transport.get(ask, params, gzip=False) as response:
            began = self.last_byte_at = self._clock.now()
            try:
                await self._follow(ask, response.content, lines, seconds)
            finally:
                self.last_byte_at = None
                lasted = (self._clock.now() - began).total_seconds()
                if lasted >= self._timings.healthy:
                    self._failures = 0
        if lines.unfinished:
            raise Unreachable(ask.failed("the stream ended inside an event"))
        if lasted < self._timings.too_short and self._version == before:
            raise Unreachable(ask.failed("the stream ended at once"))

    async def _follow(
        self, ask: Ask, content: StreamReader, lines: LineBuffer, seconds: float
    ) -> None:
        """Read to the end of the stream, and say when all that had piled up is in (Opened)."""
        now = asyncio.get_running_loop().time
        caught_up_by: float | None = now() + self._timings.catch_up
        while True:
            idle = self._timings.idle if self._bookmarks else seconds + self._timings.idle_slack
            if caught_up_by is not None and now() >= caught_up_by:
                caught_up_by = None
                self._inbox.put([Opened(self.scope)])
            try:
                async with asyncio.timeout(idle if caught_up_by is None else self._timings.quiet):
                    chunk = await content.readany()
            except TimeoutError:
                if caught_up_by is None:
                    raise Silent(ask.failed(f"not a byte in {idle:g} s")) from None
                caught_up_by = 0  # quiet: that was all
                continue
            if not chunk:
                return
            self._heard(ask, idle)
            self._take_in(ask, lines.feed(chunk))
            await self._inbox.room()

    def _heard(self, ask: Ask, idle: float) -> None:
        """Note the time; a gap that no deadline ended means that the machine slept (W38)."""
        now, before = self._clock.now(), self.last_byte_at
        self.last_byte_at = now
        if before is not None and now - before > timedelta(seconds=idle) + _SLEPT:
            raise Expired(ask.failed("this machine was asleep"))

    def _take_in(self, ask: Ask, lines: Sequence[bytes]) -> None:
        """Hand on all events of one chunk in one go, and only then advance the version (W9)."""
        batch: list[WatchEvent] = []
        version = self._version
        try:
            for line in lines:
                event = decode_line(line, self.scope, self._cluster)
                if isinstance(event, (Applied, Deleted)):
                    batch.append(event)
                    version = event.snapshot.resource_version or version
                    self._bad_in_a_row = 0
                elif isinstance(event, Bookmark):
                    version = event.version or version
                    self._bad_in_a_row, self._bookmarks = 0, True
                elif line:
                    self._stumble(ask, event)
        finally:
            if batch:
                self._inbox.put(batch)
                self._failures = 0
            if not is_older(version, self._version):
                self._version = version

    def _stumble(self, ask: Ask, event: Status | Unreadable) -> None:
        """Raise on an ERROR event; skip what is unreadable unless it comes again and again."""
        if isinstance(event, Status):
            raise error_for(ask, event, event.retry_after)
        self.bad_lines += 1
        self._bad_in_a_row += 1
        if event.reason not in self._told_of:
            self._told_of.add(event.reason)
            _LOG.warning("watch.line_skipped", scope=self.scope, reason=event.reason)
        if self._bad_in_a_row >= _BAD_IN_A_ROW:
            self._bad_in_a_row = 0
            raise Expired(ask.failed(f"nothing but unreadable events: {event.reason}"))


class _TokenExpired(Expired):
    """410 on a continued page: only a list in one piece helps (W2)."""
