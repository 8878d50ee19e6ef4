"""The list-watch of one scope, for ever: list, watch from there, watch again (watch.md W1-W25)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NoReturn

import msgspec
import structlog
from aiohttp import StreamReader

from watcher.cluster.decode import Bookmark, Status, decode_line
from watcher.cluster.history import History, Mark
from watcher.cluster.inbox import Inbox
from watcher.cluster.lifetime import End, Lifetime
from watcher.cluster.transport import (
    Ask,
    Cut,
    Lost,
    Silent,
    Timings,
    Transport,
    Withheld,
    error_for,
)
from watcher.cluster.waits import Waits
from watcher.core.model import EPOCH, DeploymentSnapshot
from watcher.errors import ClusterError, Expired, Garbled, Rewound, Throttled, Unreachable
from watcher.ports import Applied, Broken, Clock, Deleted, Listed, Opened, Stream, WatchEvent
from watcher.view import is_older

_LOG: Final = structlog.get_logger(__name__)
_SLEPT: Final = timedelta(seconds=30)
_FAILURES_UNTIL_POLLING: Final = 5
"""A watch that cannot be had this often is listed before every further try, so that the view
stays right (F47)."""


@dataclass(eq=False)
class ScopeWatch:
    """Follows one scope and puts what it sees into the inbox; ends only by being cancelled.

    It keeps no Deployment: what a list leaves out was deleted, and that is the consumer's to see.
    """

    scope: str
    cluster: str
    selector: Mapping[str, str]
    transport: Transport
    inbox: Inbox
    clock: Clock
    timings: Timings
    uniform: Callable[[float, float], float]
    stream: Stream = field(default_factory=Stream)
    _blind_by: str = "start"
    _listed_at: datetime = EPOCH
    _list_took: float = 0
    """Seconds."""
    _heard_at: datetime = EPOCH
    """The present stream's last byte, or its headers."""
    _unreadable_after: str = ""
    """The version after which an event came that could not be read."""
    _unreadable: int = 0
    """How many streams in a row such an event has ended."""
    _streaming: asyncio.Timeout | None = None
    """Ends the present stream when it is told to …"""
    _left_for: ClusterError | None = None
    """… and for what."""
    _told_of: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._waits = Waits(self.clock, self.timings, self.uniform, self._failed)
        self._lifetime = Lifetime(self.timings, self.uniform)
        cap = timedelta(seconds=self.timings.backoff_cap)
        self.history = History(self.stream, self.clock, at_most_every=cap)

    async def run(self) -> None:
        """List and watch until cancelled; every failure becomes a Broken and another try."""
        self.stream.resource_version, self._blind_by = "", "start"
        while True:
            async for attempt in self._waits.row():
                with attempt:
                    await self._once()
            await self.clock.sleep(self.uniform(*self.timings.pause))

    def answered(self, anew: bool) -> None:
        """Note that the API server answers: with it, or `anew`, the first wait is over."""
        self._waits.answered(anew)

    async def _once(self) -> None:
        """List if that is needed, and watch to the end; raises ClusterError if that is a failure."""
        if self._lifetime.wants_list:
            await self._list_for_watch()
        elif not self.stream.resource_version:
            await self._list(self._blind_by)
        try:
            await self._stream_until_left()
        except (Silent, Cut) as error:
            self._ended(error)
        else:
            self._ended(None)
        self._unreadable = 0

    def compare(self, mark: Mark, version: str) -> None:
        """Take in the version of a consistent read that was asked for at `mark` of the history.

        A server whose store was put back to an older copy answers a watch from what is its future
        with silence for ever: list anew.
        """
        if not self.stream.resource_version or not self.history.is_another(mark, version):
            return  # a list that is needed anyway shows it itself
        self.history.rewind()
        why = "the API server's store was put back to an older copy"
        if not self._leave(Rewound(Ask("watch", self.scope).failed(why))):
            self.stream.resource_version, self._blind_by = "", Rewound.cause_label

    def hurry(self, silent_since: datetime) -> None:
        """The server is back: if the stream has not said a word since it was lost, watch anew.

        Its connection may have outlived the outage or not, and its next bookmark is up to a minute
        away.
        """
        if self._heard_at < silent_since:
            self._leave(Silent(Ask("watch", self.scope).failed("not a byte since an outage")))

    def _leave(self, error: ClusterError) -> bool:
        """End the present stream, if there is one, as if it had failed with this."""
        if self._streaming is None:
            return False
        if not self._streaming.expired():
            self._left_for = error
            self._streaming.reschedule(asyncio.get_running_loop().time())
        return True

    def _ended(self, error: Silent | Cut | None) -> None:
        """A stream is over; where answers are held back that is when there is most to see."""
        if not self._lifetime.withheld:
            self._broke(error)
        else:
            self._count(error)
            if error is None:
                self._seen()
            else:
                self._lifetime.fail()

    def _seen(self) -> None:
        """All is in that there was to see."""
        self.stream.last_byte_at = self.clock.now()
        self.inbox.put([Opened(self.scope)])

    def _broke(self, error: ClusterError | None) -> None:
        self._count(error)
        self.inbox.put([Broken(self.scope, error)])

    def _count(self, error: ClusterError | None) -> None:
        self.stream.breaks[error.cause_label if error else "ended"] += 1

    def _failed(self, error: ClusterError, in_a_row: int) -> None:
        self._broke(error)
        self._lifetime.fail()
        hopeless = in_a_row >= _FAILURES_UNTIL_POLLING and not isinstance(error, Throttled)
        if isinstance(error, Expired) or hopeless:
            self.stream.resource_version, self._blind_by = "", error.cause_label

    async def _list_for_watch(self) -> None:
        """List in place of a watch that is not answered: if that is, its answers are held back.

        A list that takes long is not made as often, yet often enough to stay in sight.
        """
        gap = min(self._list_took / self.timings.list_share, self.timings.list_gap)
        wait = (self._listed_at - self.clock.now()).total_seconds() + gap
        if wait > 0:
            await self.clock.sleep(wait)
        try:
            await self._list(Withheld.cause_label)
        except ClusterError:
            self._lifetime.acquit()
            raise
        if not self._lifetime.withheld:
            self._lifetime.hold_back(self.clock.now())
            self._show_lifetime()
            self._seen()

    async def _list(self, reason: str) -> None:
        """Take a complete list, or nothing: half a list would pass for deletions (W3)."""
        self.stream.lists[reason] += 1
        began = self.clock.now()
        listed = await self._pages(self.timings.page)
        self._listed_at, self._list_took = self.clock.now(), self._age(began)
        self.stream.resource_version = listed.version
        former = self.history.listed(listed.version)
        self.inbox.put([msgspec.structs.replace(listed, reason=reason, rewound_from=former)])
        if self._lifetime.withheld:
            self._seen()

    async def _pages(self, limit: int) -> Listed:
        """Follow `continue` to the end; the version is not asked for, so the list is consistent."""
        ask, found, asked_at = Ask("list", self.scope), list[DeploymentSnapshot](), self.clock.now()
        params = {**self.selector, **({"limit": str(limit)} if limit else {})}
        page = await self.transport.page(ask, params, self.cluster)
        version = page.version
        while page.next:
            found += page.snapshots
            try:
                following = {**params, "continue": page.next}
                page = await self.transport.page(ask, following, self.cluster)
            except Expired:
                if not limit:
                    raise
                return await self._pages(limit=0)  # in one piece, and of these nothing (W2)
        return Listed(self.scope, (*found, *page.snapshots), asked_at, version)

    async def _stream_until_left(self) -> None:
        """Watch once, at most until a read beside it shows that this stream is of no use."""
        try:
            async with asyncio.timeout(None) as self._streaming:
                await self._stream()
        except TimeoutError:
            if self._left_for is None:
                raise
            raise self._left_for from None
        finally:
            self._streaming = self._left_for = None

    async def _stream(self) -> None:
        """Watch once; returns on the orderly end and raises ClusterError on any other."""
        ask, before = Ask("watch", self.scope), self.stream.resource_version
        lines = LineBuffer(self.timings.line_bytes)
        seconds, patience = self._lifetime.ask()
        self.stream.timeout_seconds = seconds
        params = {
            **self.selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": before,
        }
        began, opened = self.clock.now(), None
        try:
            async with self.transport.get(ask, params, patience=patience) as response:
                opened = self._heard_at = self.clock.now()
                await self._follow(ask, response.content, lines, seconds)
                chunked = "Transfer-Encoding" in response.headers
            if not chunked and self._age(began) < seconds - self.timings.too_short:
                raise Lost(ask.failed("the connection was closed"))  # which has no last chunk
            if lines.unfinished:
                raise Lost(ask.failed("the stream ended inside an event"))
            at_once = self._age(opened) < self.timings.too_short
            at_once &= self._age(began) < self.timings.lived  # headers may come with the end
            if at_once and self.stream.resource_version == before:
                raise Unreachable(ask.failed("the stream ended at once"))
        except ClusterError as error:
            self._learn(began, opened, error)
            if isinstance(error, Lost) and self._age(began) >= self.timings.lived:
                raise Cut(str(error)) from None
            raise
        self._learn(began, opened, None)

    def _learn(self, began: datetime, opened: datetime | None, error: ClusterError | None) -> None:
        """Draw conclusions from how a watch ended for how long to ask for the next."""
        age, cut = self._age(began), isinstance(error, Lost)
        if opened is not None:
            end = End(
                age, self._age(self._heard_at), (opened - began).total_seconds(),
                orderly=error is None, cut=cut, silent=isinstance(error, Silent),
            )  # fmt: skip
            if self._age(opened) >= self.timings.lived:
                self._waits.forgive()
        elif isinstance(error, Withheld) or (cut and age >= self.timings.lived):
            end = End(age, age, None, cut=cut)
        else:
            return  # a refusal passes through everything
        self._lifetime.learn(end, self.clock.now())
        self._show_lifetime()

    def _show_lifetime(self) -> None:
        """Say what stands in between, in the log once."""
        learned, known = self._lifetime, self.stream.shortened_by
        self.stream.shortened_by, self.stream.obstacle = learned.shortened_by, learned.obstacle
        if learned.shortened_by in (known, None):
            return
        _LOG.warning(
            "watch.obstructed", cluster=self.cluster, scope=self.scope,
            reason=learned.shortened_by, obstacle=learned.obstacle,
        )  # fmt: skip

    def _age(self, since: datetime) -> float:
        return (self.clock.now() - since).total_seconds()

    async def _follow(
        self, ask: Ask, content: StreamReader, lines: "LineBuffer", seconds: int
    ) -> None:
        """Read to the end of the stream, and say when all that had piled up is in (Opened)."""
        now = asyncio.get_running_loop().time
        idle = min(self.timings.idle, seconds + self.timings.grace)
        caught_up_by: float | None = now() + self.timings.catch_up
        while True:
            if caught_up_by is not None and now() >= caught_up_by:
                caught_up_by = None
                self._seen()  # that nothing comes is news as well
            try:
                async with asyncio.timeout(idle if caught_up_by is None else self.timings.quiet):
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
            if lines.overlong:
                version = self.stream.resource_version
                self._stumble(ask, f"more than {self.timings.line_bytes} bytes", version)
            await self.inbox.room()

    def _heard(self, ask: Ask, idle: float) -> None:
        """Note the time; a gap that no deadline ended means that the machine slept (W38)."""
        now = self.clock.now()
        if now - self._heard_at > timedelta(seconds=idle) + _SLEPT:
            raise Expired(ask.failed("this machine was asleep"))
        self._heard_at = self.stream.last_byte_at = now

    def _take_in(self, ask: Ask, lines: Sequence[bytes]) -> None:
        """Hand on all events of one chunk in one go, and only then advance the version (W9)."""
        batch: list[WatchEvent] = []
        version = before = self.stream.resource_version
        try:
            for line in filter(None, lines):
                event = decode_line(line, self.scope, self.cluster)
                if isinstance(event, (Applied, Deleted)):
                    batch.append(event)
                    version = event.snapshot.resource_version or version
                elif isinstance(event, Bookmark):
                    version = event.version or version
                    self.stream.last_bookmark_at = self.clock.now()
                elif isinstance(event, Status):
                    raise error_for(ask, event)
                else:
                    self._stumble(ask, event.reason, version)
        finally:
            if batch:
                self.inbox.put(batch)
            if version != before and not is_older(version, before):
                self.stream.resource_version = self.history.reached = version
                if batch:  # a real event; a replayed one forgives nothing
                    self._waits.forgive()

    def _stumble(self, ask: Ask, why: str, after: str) -> NoReturn:
        """End the stream, as client-go does: what follows an unreadable event is not to be trusted.

        The next one goes on from the version before it; if it comes again there, a list leads past
        it. No event in between forgives that, or it would be listed for ever.
        """
        self.stream.bad_lines += 1
        if why not in self._told_of:
            self._told_of.add(why)
            _LOG.warning("watch.event_unreadable", scope=self.scope, reason=why)
        if after == self._unreadable_after:
            self.stream.resource_version, self._blind_by = "", Garbled.cause_label
        self._unreadable_after = after
        self._unreadable += 1
        self._waits.count_as(self._unreadable)
        raise Garbled(ask.failed(f"an event that cannot be read: {why}"))


class LineBuffer:
    """Cuts a stream into lines at 0x0A and nowhere else, in linear time (W18)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        return lines

    @property
    def overlong(self) -> bool:
        """Whether what is left without its newline is more than the limit."""
        return self._size > self._limit

    @property
    def unfinished(self) -> bool:
        """Whether bytes without their newline are left."""
        return self._size > 0
