"""One API server as the program sees it: all scopes watched, and a heartbeat beside them."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, NoReturn
from urllib.parse import quote

import msgspec
import structlog
from msgspec import Struct
from tenacity import AsyncRetrying, wait_fixed

from watcher.cluster.auth import Auth
from watcher.cluster.decode import decode_object
from watcher.cluster.inbox import Inbox
from watcher.cluster.snapshot import UNDECODABLE
from watcher.cluster.transport import Ask, Timings, Transport
from watcher.cluster.watch import ScopeWatch
from watcher.core.events import Resolution
from watcher.core.model import EPOCH, DeploymentSnapshot, Subject
from watcher.core.namespaces import NOTHING, Exclusion
from watcher.errors import ClusterError, Forbidden, NotFound, Protocol, Unreachable
from watcher.ports import Broken, Clock, Looked, Probe, Stream, WatchEvent

_LOG: Final = structlog.stdlib.get_logger(__name__)
_RESTART_AFTER: Final = wait_fixed(1)
_OUTAGE: Final = 3
"""So many probes without an answer are more than a blip."""
_MOST_GETS: Final = 20
"""Above this one list is less work for everybody."""


class _Version(Struct, rename="camel"):
    git_version: str = ""


class KubeCluster:
    """Implements the `Cluster` port over the Kubernetes API."""

    def __init__(
        self,
        name: str,
        auth: Auth,
        clock: Clock,
        *,
        scopes: Sequence[str] = ("",),
        label_selector: str = "",
        excluded: Exclusion = NOTHING,
        timings: Timings | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`scopes` are namespaces, or one empty string for all but the `excluded` ones."""
        self.name, self.excluded = name, excluded
        self.scopes: Sequence[str] = tuple(dict.fromkeys(scopes)) or ("",)
        self._clock, self._auth, self._timings = clock, auth, timings or Timings()
        self.probe_seconds = self._timings.probe
        """How long a probe waits for its answer."""
        self._inbox = Inbox(excluded=excluded)
        self._transport = Transport(auth, clock, self._timings)
        self._heartbeat = Transport(auth, clock, self._timings)
        self._version, self._version_until = "", EPOCH
        self._place = 0
        self._unanswered = 0
        """Probes in a row that did not let us read."""
        self._lost_at = EPOCH
        """When the last probe without an answer was given up."""
        self._no_look_before = EPOCH
        self.selective = bool(label_selector)
        selects = {"labelSelector": label_selector, "fieldSelector": excluded.field_selector}
        self._selector = selector = {key: value for key, value in selects.items() if value}
        common = (self._transport, self._inbox, clock, self._timings, uniform)
        self.watches = {scope: ScopeWatch(scope, name, selector, *common) for scope in self.scopes}

    @property
    def server(self) -> str:
        """Where it is, fit to be shown."""
        return self._auth.server

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for watch in self.watches.values():
                group.create_task(self._keep(watch))

    async def events(self) -> Sequence[WatchEvent]:
        return await self._inbox.take()

    def stream(self, scope: str) -> Stream:
        return self.watches[scope].stream

    async def look(self, subjects: Sequence[Subject]) -> Looked:
        """Ask for each by name, whatever its labels; of more than a few, for those no list shows."""
        found: dict[str, DeploymentSnapshot | Resolution] = {}
        if not subjects or self._clock.now() < self._no_look_before:
            return found
        with suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(self._timings.look):
                missing = list(subjects)
                if len(subjects) > _MOST_GETS:
                    await self._look_through(subjects, found)
                    missing = [subject for subject in subjects if subject.uid not in found]
                    if not self.selective or len(missing) > _MOST_GETS:
                        found |= {subject.uid: self._unlisted for subject in missing}
                        missing.clear()
                await asyncio.gather(*(self._get(subject, found) for subject in missing))
        if len(found) < len(subjects):  # nobody is to wait for such a server again and again
            pause = timedelta(seconds=self._timings.look_again)
            self._no_look_before = self._clock.now() + pause
        return found

    async def _get(
        self, subject: Subject, found: dict[str, DeploymentSnapshot | Resolution]
    ) -> None:
        ask = Ask("get", subject.namespace)
        with suppress(ClusterError):
            try:
                path = f"{ask.path}/{quote(subject.name, safe='')}"
                seen = [decode_object(await self._heartbeat.read(ask, {}, path), self.name)]
            except NotFound:
                found[subject.uid] = Resolution.DELETED
                return
            except Forbidden:  # an authorizer may allow lists by label alone (KEP-4601)
                by_name = {"fieldSelector": f"metadata.name={subject.name}"}
                ask, params = Ask("list", subject.namespace), {**self._selector, **by_name}
                seen = [*(await self._heartbeat.page(ask, params, self.name)).snapshots]
                found[subject.uid] = self._unlisted
            for s in seen:
                if (s.namespace, s.name) == (subject.namespace, subject.name):
                    found[subject.uid] = s

    async def _look_through(
        self, subjects: Sequence[Subject], found: dict[str, DeploymentSnapshot | Resolution]
    ) -> None:
        """List page by page what is selected, and keep only what was asked for."""
        uids = {(subject.namespace, subject.name): subject.uid for subject in subjects}
        for scope in {subject.namespace if "" not in self.scopes else "" for subject in subjects}:
            params, more = {**self._selector, "limit": str(self._timings.page)}, True
            while more:
                page = await self._heartbeat.page(Ask("list", scope), params, self.name)
                names = ((uids.get((s.namespace, s.name)), s) for s in page.snapshots)
                found |= {uid: s for uid, s in names if uid is not None}
                params, more = {**params, "continue": page.next}, bool(page.next)

    @property
    def _unlisted(self) -> Resolution:
        """What is said of one that no list shows: by its labels it may be there all the same."""
        return Resolution.LEFT_SCOPE if self.selective else Resolution.DELETED

    async def probe(self) -> Probe:
        """Ask for one Deployment on a connection of its own: proof of life and of our rights.

        A watch that backs off from a server that was down need not wait any longer then.
        """
        ask = Ask("list", self.scopes[self._place])
        self._unanswered += 1
        try:
            await self._auth.current()  # a slow exec plugin is no slow API server
            began = self._clock.now()
            marks = [(watch, watch.history.mark) for watch in self.watches.values()]
            async with asyncio.timeout(self.probe_seconds):
                page = await self._heartbeat.page(ask, {**self._selector, "limit": "1"}, self.name)
        except TimeoutError:
            self._lost_at = self._clock.now()
            why = ask.failed(f"no answer in {self.probe_seconds:g} s")
            return Probe(Unreachable(why), self._version)
        except ClusterError as error:
            if isinstance(error, Forbidden):  # another namespace may still let us in
                self._place = (self._place + 1) % len(self.scopes)
            if isinstance(error, Unreachable):
                self._lost_at = self._clock.now()
            return Probe(error, self._version)
        latency = (self._clock.now() - began).total_seconds()
        unanswered, self._unanswered = self._unanswered - 1, 0
        for watch, mark in marks:
            watch.answered(anew=unanswered > 0)
            if unanswered >= _OUTAGE:
                watch.hurry(self._lost_at)
            watch.compare(mark, page.version)
        if self._clock.now() >= self._version_until:
            self._version_until = self._clock.now() + timedelta(seconds=self._timings.version)
            with suppress(ClusterError, TimeoutError, *UNDECODABLE):  # it may be denied to us
                async with asyncio.timeout(self.probe_seconds):
                    body = await self._heartbeat.read(ask, {}, "/version")
                self._version = msgspec.json.decode(body, type=_Version).git_version
        return Probe(None, self._version, latency)

    async def close(self) -> None:
        await self._transport.close()
        await self._heartbeat.close()

    async def _keep(self, watch: ScopeWatch) -> None:
        """Start the watch again, and say so, if it ends: it never should."""
        async for attempt in AsyncRetrying(wait=_RESTART_AFTER, sleep=self._clock.sleep):
            with attempt:
                await self._outlive(watch)

    async def _outlive(self, watch: ScopeWatch) -> NoReturn:
        task = asyncio.create_task(watch.run())
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
        # A cancellation that nobody asked for is no reason to be blind in silence.
        error = None if task.cancelled() else task.exception()
        _LOG.error("watch.task_ended", scope=watch.scope, exc_info=error)
        broken = Protocol(f"the watch ended unexpectedly: {type(error).__name__}")
        self._inbox.put([Broken(watch.scope, broken)])
        raise broken
