"""The whole program on an embedded API server behind a bad network, and what its receiver was told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.proxy import Proxy
from tests.faults.warp import START, WarpedClock
from watcher.app import Process, run
from watcher.config.load import load
from watcher.testing.apiserver import FakeApiServer, Seen
from watcher.testing.objects import deployment

PREFIX, SUFFIX = "dev.deployment-watcher.", ".v1"


class World:
    """One process, one cluster with a, b and c in the namespace shop, one webhook."""

    def __init__(self, folder: Path) -> None:
        self.clock = WarpedClock()
        self.server = FakeApiServer(clock=self.clock)
        self.proxy = Proxy(0)
        self.process: Process
        self.received: list[tuple[float, dict[str, Any]]] = []
        """Each webhook with the seconds after the start at which it came."""
        self.answering = asyncio.Event()
        """The receiver answers only while this is set."""
        self.answering.set()
        self.folder = folder
        self._hook = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return (self.clock.now() - START).total_seconds()

    @property
    def told(self) -> list[str]:
        """What the receiver got, in order: `degraded a`, `unreachable`."""
        return [headline(event) for _, event in self.received]

    def told_at(self, line: str) -> float:
        """When that was told."""
        return next(at for at, event in self.received if headline(event) == line)

    def asked(self, *verbs: str, since: float = 0) -> list[Seen]:
        """The requests of these kinds, or of all, but for the heartbeat's version."""
        after = START + timedelta(seconds=since)
        wanted = verbs or ("list", "page", "watch")
        return [seen for seen in self.server.requests if seen.verb in wanted and seen.at >= after]

    def lists(self, since: float = 0) -> list[Seen]:
        """Lists that the watch made: a heartbeat's is a list of one."""
        return [seen for seen in self.asked("list", since=since) if seen.query.get("limit") != "1"]

    async def pass_time(self, seconds: float) -> None:
        """Let that much time pass."""
        await self.clock.sleep(seconds)

    async def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        """One of the process's own pages."""
        url = f"http://{self.process.addresses[0]}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.json(content_type=None)

    async def rows(self) -> list[dict[str, Any]]:
        """The Deployments as the process shows them."""
        found: list[dict[str, Any]] = (await self.get("/health/deployments"))["deployments"]
        return found

    async def until(self, holds: Callable[[], bool], within: float) -> float:
        """Let time pass until this holds; gives how long it took."""
        began = self.seconds
        while not holds():
            assert self.seconds - began < within, f"not within {within} s: {self.told}"
            await self.pass_time(0.1)
        return self.seconds - began

    def variables(self, **more: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON
        """The configuration; a keyword is a variable, JSON unless it is text."""
        kubeconfig = self.folder / "kubeconfig"
        server = f"http://{more.pop('host', '127.0.0.1')}:{self.proxy.port}"
        written = self.server.kubeconfig()
        written["clusters"][0]["cluster"]["server"] = server
        written["users"][0]["user"] = more.pop("user", {})
        kubeconfig.write_text(json.dumps(written))
        hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{self._hook}/"}
        usual = {
            "CLUSTERS": [
                {"name": "prod", "kubeconfig": str(kubeconfig), **more.pop("cluster", {})}
            ],
            "SINKS": [hook],
            "STORE__URL": f"sqlite:///{self.folder}/watcher.db",
            "WEB__ADDRESS": "127.0.0.1:0",
        }
        return {
            f"WATCHER_{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in (usual | more).items()
        }

    @asynccontextmanager
    async def watcher(self, **more: Any) -> AsyncIterator[None]:  # noqa: ANN401 - any JSON
        """Run the process within the block; its death is the block's."""
        stop, ready = asyncio.Event(), asyncio.Event()

        def started(process: Process) -> None:
            self.process = process
            ready.set()

        config = load(None, self.variables(**more), {})
        async with asyncio.TaskGroup() as group:
            group.create_task(run(config, clock=self.clock, ready=started, stop=stop))
            await ready.wait()
            try:
                yield
            finally:
                stop.set()

    async def _take(self, request: web.Request) -> web.Response:
        await self.answering.wait()
        self.received.append((self.seconds, json.loads(await request.read())))
        return web.Response(status=204)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Serve API server, proxy and receiver within the block."""
        for name in "abc":
            self.server.apply(deployment("shop", name))
        app = web.Application()
        app.router.add_post("/", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._hook = runner.addresses[0][1]
        await self.server.start()
        self.proxy.target = self.server.port
        try:
            async with self.proxy:
                yield
        finally:
            await self.server.stop()
            await runner.cleanup()


@asynccontextmanager
async def world(folder: Path, **more: Any) -> AsyncIterator[World]:  # noqa: ANN401 - any JSON
    """A process that has looked at its cluster for ten seconds."""
    made = World(folder)
    async with made.open(), made.watcher(**more):
        await made.pass_time(10)
        yield made


def headline(event: dict[str, Any]) -> str:
    """`degraded a` for a Deployment, `unreachable` for the cluster."""
    kind = event["type"].removeprefix(PREFIX).removesuffix(SUFFIX).partition(".")[2]
    return f"{kind} {event['data'].get('name', '')}".rstrip()
