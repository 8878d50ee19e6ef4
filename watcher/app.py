"""The composition root: what runs, wired, and the one group of loops."""

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from aiohttp.web import AppRunner
from msgspec.structs import replace

from watcher import __version__, audit
from watcher import config as options
from watcher.adapters import make_cluster, make_pinger, make_sink
from watcher.alarm import StoreAlarm
from watcher.clock import SystemClock
from watcher.config.load import Source
from watcher.config.secrets import mask
from watcher.core.events import Resolution
from watcher.dead_man import DeadMan
from watcher.dispatcher import Dispatcher
from watcher.errors import StoreError
from watcher.follower import Follower
from watcher.leadership import Leadership
from watcher.loops import Exchange, Loop, never_ends
from watcher.metrics import Metrics
from watcher.ports import Clock, Record, Sink, Store, Traits
from watcher.queue_cap import QueueCap
from watcher.recording import close_departed
from watcher.reload import Reload
from watcher.reporting import Reporting
from watcher.restating import Restating
from watcher.sinks.alertmanager import Alertmanager
from watcher.stores.database import open_store
from watcher.trouble import Trouble
from watcher.view import View
from watcher.web import make_app, serve

_ECHO_AFTER_SECONDS: Final = 0.01
_STORE_CHECK: Final = timedelta(seconds=15)
_ASK_AGAIN_SECONDS: Final = 5.0
"""A store that has failed for a moment is known to work again before anybody is told that it fails."""
_PARTING_SECONDS: Final = 3.0


class Process:
    """Everything that runs, wired; `run` is its life."""

    def __init__(
        self, config: options.Config, clock: Clock, source: Source | None, asked: asyncio.Event
    ) -> None:
        self.view = View()
        self.metrics = Metrics(self.view, clock, [sink.name for sink in config.sinks])
        self.addresses: Sequence[str] = ()
        """Where the web answers, once it does."""
        self._config = config
        self._clock = clock
        self._reporting = _Reporting(self)
        self.store_refused = asyncio.Event()
        """Set until the store is asked whether it works by now."""
        self._sinks: Mapping[str, Sink] = {}
        self.dispatchers: dict[str, Dispatcher] = {}
        self._told: list[Traits] = []
        self._told_sinks: list[Sink] = []
        """These three are shared by all who tell of something; a reload exchanges what is in them."""
        self._clusters = [make_cluster(settings, config, clock) for settings in config.clusters]
        sinks = self._make_sinks(config)
        store = open_store(config.store.url.read(), exclusive=True)
        store.unreadable = self._reporting.unreadable
        if store.empty:
            audit.emit("store.created", url=mask(config.store.url.read()))
        self._store: Store = store
        self.leadership = Leadership(self._store, clock, self._reporting)
        self._followers = [
            Follower(
                cluster, self.view, self._store, clock, self._told, config.health_policy(),
                config.cluster_policy(), self._reporting, self.dispatchers,
            )
            for cluster in self._clusters
        ]  # fmt: skip
        self._sending = Exchange()
        self._reload = source and Reload(
            source, config, lambda new: self._put_in_force(new, self._make_sinks(new)),
            asked, clock, self.view, self.metrics,
        )  # fmt: skip
        self._put_in_force(config, sinks)
        self._redriven: dict[str, datetime] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}

    def _make_sinks(self, config: options.Config) -> Mapping[str, Sink]:
        """Build what is new or changed; the others stay, with what they have under way."""
        stay = {each.name for each in self._config.sinks if each in config.sinks}
        kept = {name: sink for name, sink in self._sinks.items() if name in stay}
        return {s.name: kept.get(s.name) or make_sink(s, self._clock) for s in config.sinks}

    def _put_in_force(self, config: options.Config, sinks: Mapping[str, Sink]) -> None:
        """Exchange everything in one go: nothing in here can fail, or wait."""
        self._told_sinks[:] = [sink for name, sink in sinks.items() if name in config.told]
        traits = {name: sink.traits for name, sink in sinks.items()}
        self._told[:] = [replace(of, routed=name in config.told) for name, of in traits.items()]
        dispatchers = {
            name: self.dispatchers[name]
            if self._sinks.get(name) is sink
            else Dispatcher(sink, self._store, self._clock, self._reporting, told=self._told)
            for name, sink in sinks.items()
        }
        self.dispatchers.clear()
        self.dispatchers.update(dispatchers)
        self.metrics.sink_breaker.clear()
        for name, dispatcher in self.dispatchers.items():
            self.metrics.sink_breaker.labels(name).set_function(dispatcher.breaker)
        self._config, self._sinks = config, sinks
        for cluster in self._clusters:
            cluster.probe_seconds = config.heartbeat.timeout.total_seconds()
        for follower in self._followers:
            follower.obey(config.health_policy(), config.cluster_policy())
        self._sending.want(self._senders())
        if config.dead_man is None:
            self._reporting.dead_man("")

    def _senders(self) -> Mapping[str, tuple[object, Loop]]:
        """What runs as long as this process is the writer, and what each of it is for."""
        loops: dict[str, tuple[object, Loop]] = {}
        for name, sink in self._sinks.items():
            loops[f"sink {name}"] = sink, self.dispatchers[name].run
            if isinstance(sink, Alertmanager):
                again = Restating(sink, self._store, self._clock, self._reporting)
                loops[f"restating {name}"] = sink, again.run
        if settings := self._config.dead_man:
            told = self._config.told
            dead_man = DeadMan(
                make_pinger(settings, self._clock).send, settings.interval, told,
                self._config.store.queue_cap, self.view, self._store, self._clock, self._reporting,
            )  # fmt: skip
            loops["dead man"] = (settings, told), dead_man.run
        return loops

    async def run(self, stop: asyncio.Event, ready: Callable[[], None]) -> None:
        """Live until `stop` is set; a loop that ends before that ends the process with its error."""
        app = make_app(self.view, self._store, self.metrics, self._clock, self.dead_loops)
        web: AppRunner | None = None
        try:
            web = await serve(app, self._config.web.address)
            self.addresses = [f"{host}:{port}" for host, port, *_ in web.addresses]
            audit.emit("process.started", version=__version__, address=" ".join(self.addresses))
            async with asyncio.TaskGroup() as group:
                for name, loop in self._endless().items():
                    self._loops[name] = group.create_task(never_ends(name, loop), name=name)
                ready()
                await stop.wait()
                for task in self._loops.values():
                    task.cancel()
        finally:
            await self._close(web)
            self._reporting.catch_up()
        audit.emit("process.stopped", reason="asked to")

    def dead_loops(self) -> list[str]:
        """Loops that have ended although nobody asked them to."""
        return [name for name, task in self._loops.items() if task.done()]

    def _endless(self) -> Mapping[str, Loop]:
        reload = {"reload": self._reload.run} if self._reload else {}
        return {
            "leadership": partial(self.leadership.run, self._term),
            "alarm": StoreAlarm(self.view, self._told_sinks, self._clock).run,
            **reload,
            **{f"cluster {f.cluster.name}": partial(self._follow, f) for f in self._followers},
        }

    async def _term(self) -> None:
        """What only the one writer does: record what is decided, and send it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(never_ends("store", self._check_store))
                group.create_task(self._close_departed())
                for follower in self._followers:
                    group.create_task(follower.restore())
                group.create_task(never_ends("sending", self._sending.run))
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PARTING_SECONDS):
                    now = self._clock.now()
                    await asyncio.gather(*(follower.stop(now) for follower in self._followers))

    async def _close_departed(self) -> None:
        watched = [follower.cluster.name for follower in self._followers]
        committed = self._reporting.recorded
        while True:
            try:
                await close_departed(watched, self._store, self._clock, self._told, committed)
            except StoreError as error:
                self._reporting.store_refused(error)
                await self._clock.sleep(1)
            else:
                return

    async def _follow(self, follower: Follower) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in (follower.cluster.run, follower.watch, follower.probe, follower.keep_time):
                group.create_task(never_ends(loop.__qualname__, loop))

    async def _check_store(self) -> None:
        """Notice a store that fails while nothing happens, and what others have done to it."""
        queue = QueueCap(self._told, self._store, self._clock, self._reporting)
        while True:
            self.store_refused.clear()
            try:
                await self._forget_sinks()
                await self._notice_redriven()
                await self._store.prune(self._clock.wall() - self._config.store.retain)
                await queue.check(self._config.store.queue_cap)
                await self._store.ping()  # last: what failed before it may work by now
            except StoreError as error:
                self._reporting.store_refused(error)
            else:
                self._reporting.store_works()
            if await self._clock.wait(self.store_refused, self._clock.now() + _STORE_CHECK):
                await self._clock.sleep(_ASK_AGAIN_SECONDS)

    async def _forget_sinks(self) -> None:
        """Keep what is queued for sinks that are configured no more, and end their troubles."""
        for sink in self.view.sink_troubles.keys() - self.dispatchers.keys():
            self._reporting.answers(sink)
        for sink, count in (await self._store.strand([*self.dispatchers])).items():
            audit.emit("sink.removed", sink=sink, deliveries=count)
        saved = await self._store.load("")
        for row in saved:
            if row.subject.name and row.subject.name not in self.dispatchers:
                trouble = Trouble(row.subject.name, self._store, self._told, self._reporting)
                trouble.restore(saved)
                await trouble.ends(self._clock.now(), Resolution.NOT_WATCHED)

    async def _notice_redriven(self) -> None:
        """Send now what was made due again beside this process, whatever its sink is spared."""
        for sink, at, by, count in await self._store.redriven():
            if sink in self.dispatchers and self._redriven.get(sink) != at:
                self._redriven[sink] = at
                audit.emit("sink.redriven", sink=sink, deliveries=count, at=at, by=by)
                self.dispatchers[sink].resume()

    async def _close(self, web: AppRunner | None) -> None:
        if web is not None:
            await web.cleanup()
        for follower in self._followers:
            await follower.cluster.close()
        await self._store.close()


class _Reporting(Reporting):
    """Wakes the sinks for which a commit left something, and ends a term that the store refuses."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.view, process.metrics)
        self._process = process
        self._unechoed = deque[Record]()

    def recorded(self, record: Record) -> None:
        super().recorded(record)
        for sink in self._process.dispatchers.keys() & {d.sink for d in record.deliveries}:
            self._process.dispatchers[sink].wake()

    def echo(self, record: Record) -> None:
        """The echo can wait until what it tells of is on its way."""
        self._unechoed.append(record)
        asyncio.get_running_loop().call_later(_ECHO_AFTER_SECONDS, self.catch_up)

    def catch_up(self) -> None:
        while self._unechoed:
            super().echo(self._unechoed.popleft())

    def store_refused(self, error: StoreError) -> None:
        super().store_refused(error)
        self._process.store_refused.set()

    def store_works(self) -> None:
        """The store took what was asked: what it has refused need not wait any longer."""
        process, failed = self._process, self._process.view.store_error
        super().store_works()
        for follower in process._followers if failed else ():
            follower.store_restored()
        for dispatcher in process.dispatchers.values() if failed else ():
            dispatcher.store_restored()

    def deposed(self) -> None:
        self._process.leadership.end()


async def run(
    config: options.Config,
    *,
    source: Source | None = None,
    clock: Clock | None = None,
    ready: Callable[[Process], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set, or SIGTERM or SIGINT comes; SIGHUP reads a `source` again.

    Raises ConfigError, StoreError when it cannot start; an ExceptionGroup when a loop has died.
    """
    stop = stop or asyncio.Event()
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    actions = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: asked.set}
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    try:
        process = Process(config, clock or SystemClock(), source, asked)
        await process.run(stop, lambda: ready(process) if ready is not None else None)
    finally:
        for number in actions:
            loop.remove_signal_handler(number)
