"""The composition root: what runs, wired, and the one group of loops."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from aiohttp.web import AppRunner

from watcher import __version__, audit
from watcher import config as options
from watcher.adapters import make_cluster, make_pinger, make_sink
from watcher.alarm import StoreAlarm
from watcher.clock import SystemClock
from watcher.config.secrets import mask
from watcher.core.model import Resolution
from watcher.dead_man import DeadMan
from watcher.dispatcher import Dispatcher
from watcher.errors import Deposed, StoreError
from watcher.follower import Follower
from watcher.leadership import Leadership
from watcher.loops import Loop, never_ends
from watcher.metrics import Metrics
from watcher.ports import Clock, Record, Store
from watcher.recording import close_departed
from watcher.reporting import Reporting
from watcher.restating import Restating
from watcher.sinks.alertmanager import Alertmanager
from watcher.stores.database import open_store
from watcher.trouble import Trouble
from watcher.view import View
from watcher.web import make_app, serve

_STORE_CHECK_SECONDS: Final = 15.0
_PARTING_SECONDS: Final = 3.0


class Process:
    """Everything that runs, wired; `run` is its life."""

    def __init__(self, config: options.Config, clock: Clock) -> None:
        self.view = View()
        self.metrics = Metrics(self.view, clock, [sink.name for sink in config.sinks])
        self.addresses: Sequence[str] = ()
        """Where the web answers, once it does."""
        self._config = config
        self._clock = clock
        self._reporting = _Reporting(self)
        clusters = [make_cluster(settings, config, clock) for settings in config.clusters]
        self._sinks = [make_sink(settings, clock) for settings in config.sinks]
        store = open_store(config.store.url.read(), exclusive=True)
        store.unreadable = self._reporting.unreadable
        if store.empty:
            audit.emit("store.created", url=mask(config.store.url.read()))
        self._store: Store = store
        self.leadership = Leadership(self._store, clock, self._reporting)
        self._told = [sink.traits for sink in self._sinks if sink.traits.name in config.told]
        self.dispatchers = {
            sink.traits.name: Dispatcher(sink, self._store, clock, self._reporting, told=self._told)
            for sink in self._sinks
        }
        for name, dispatcher in self.dispatchers.items():
            self.metrics.sink_breaker.labels(name).set_function(dispatcher.breaker)
        self._followers = [
            Follower(
                cluster, self.view, self._store, clock, self._told, config.health_policy(),
                config.cluster_policy(), self._reporting,
            )
            for cluster in clusters
        ]  # fmt: skip
        self._redriven: dict[str, datetime] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}

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
        audit.emit("process.stopped", reason="asked to")

    def dead_loops(self) -> list[str]:
        """Loops that have ended although nobody asked them to."""
        return [name for name, task in self._loops.items() if task.done()]

    def _endless(self) -> Mapping[str, Loop]:
        told = [sink for sink in self._sinks if sink.traits.name in self._config.told]
        return {
            "leadership": partial(self.leadership.run, self._term),
            "alarm": StoreAlarm(self.view, told, self._clock).run,
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
                for name, dispatcher in self.dispatchers.items():
                    group.create_task(never_ends(f"sink {name}", dispatcher.run))
                if settings := self._config.dead_man:
                    group.create_task(never_ends("dead man", self._dead_man(settings).run))
                for sink in self._sinks:
                    if isinstance(sink, Alertmanager):
                        again = Restating(sink, self._store, self._clock, self._reporting)
                        group.create_task(never_ends(f"restating {sink.traits.name}", again.run))
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

    def _dead_man(self, settings: options.DeadManSettings) -> DeadMan:
        return DeadMan(
            make_pinger(settings, self._clock).send, settings.interval, self._config.told,
            self.view, self._store, self._clock, self._reporting,
        )  # fmt: skip

    async def _check_store(self) -> None:
        """Notice a store that fails while nothing happens, and what others have done to it."""
        while True:
            await self._clock.sleep(_STORE_CHECK_SECONDS)
            try:
                await self._forget_sinks()
                await self._notice_redriven()
                await self._store.ping()
                await self._store.prune(self._clock.wall() - self._config.store.retain)
            except StoreError as error:
                self._reporting.store_refused(error)
            else:
                self._reporting.store_works()

    async def _forget_sinks(self) -> None:
        """Keep what is queued for sinks that are configured no more, and end their troubles."""
        for sink, count in (await self._store.strand([*self.dispatchers])).items():
            audit.emit("sink.removed", sink=sink, deliveries=count)
        saved = await self._store.load("")
        for row in saved:
            if row.subject.name not in self.dispatchers:
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

    def recorded(self, record: Record) -> None:
        """A decision was committed."""
        for sink in self._process.dispatchers.keys() & {d.sink for d in record.deliveries}:
            self._process.dispatchers[sink].wake()
        # The echo is written while the sinks' threads already look at the queue.
        asyncio.get_running_loop().call_soon(super().recorded, record)

    def store_restored(self) -> None:
        """The store works again: what waits for it need wait no longer."""
        for follower in self._process._followers:
            follower.store_restored()
        for dispatcher in self._process.dispatchers.values():
            dispatcher.store_restored()

    def deposed(self, error: Deposed) -> None:
        """The store has refused this process as its writer."""
        self._process.leadership.end()


async def run(
    config: options.Config,
    *,
    clock: Clock | None = None,
    ready: Callable[[Process], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set, or SIGTERM or SIGINT comes.

    Raises ConfigError, StoreError when it cannot start; an ExceptionGroup when a loop has died.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    actions = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: _not_reloaded}
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    try:
        process = Process(config, clock or SystemClock())
        await process.run(stop, lambda: ready(process) if ready is not None else None)
    finally:
        for number in actions:
            loop.remove_signal_handler(number)


def _not_reloaded() -> None:
    """Rather than dying of it, as is the default."""
    structlog.stdlib.get_logger("watcher").warning(
        "signal.ignored", signal="SIGHUP", so="the configuration is read at the start only"
    )
