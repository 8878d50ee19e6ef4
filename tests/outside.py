"""What is around a watcher's process, in a thread of its own: an API server, and a receiver of webhooks."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from msgspec import Struct

from tests.elsewhere import entered, loop_elsewhere
from watcher.core.model import Json
from watcher.testing.apiserver import FakeApiServer

T = TypeVar("T")
HOLDS = {"degraded_for": "0s", "none_available_for": "0s", "recovered_for": "0s"}


class Taken(Struct, frozen=True):
    """One webhook as it came in."""

    id: str
    """Of the delivery."""
    body: Json

    @property
    def told(self) -> str:
        """`deployment.degraded web`."""
        kind = self.body["type"].removeprefix("dev.deployment-watcher.").removesuffix(".v1")
        return f"{kind} {self.body.get('subject', '').rpartition('/')[2]}".strip()


class Outside:
    """Everything here may be called from the test's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.server = FakeApiServer()
        self.taken: list[Taken] = []
        self.url = ""
        self.notice: Callable[[str], None] = lambda moment: None
        """Called when a request is `taken` and when it is `answered`, in the other thread."""
        self.status = 204
        """What the receiver answers."""
        self._loop = loop
        self._open = asyncio.Event()
        self._open.set()

    def do(self, what: Callable[[], T]) -> T:
        """Call it where the API server lives, and give what it gives."""

        async def call() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def set_ready(self, name: str, ready: int) -> None:
        self.do(lambda: self.server.set_ready("shop", name, ready))

    def hold(self) -> None:
        """Take requests and answer none, until `let_go`."""
        self.do(self._open.clear)

    def let_go(self) -> None:
        self.do(self._open.set)

    @property
    def told(self) -> list[str]:
        """What arrived, each delivery once."""
        return list({one.id: one.told for one in list(self.taken)}.values())

    def config(self, folder: Path) -> Json:
        """Of a watcher that follows the server and tells the receiver."""
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps(self.server.kubeconfig()))
        return {
            "clusters": [{"name": "prod", "kubeconfig": str(kubeconfig)}],
            "health": HOLDS,
            "sinks": [{"name": "hook", "type": "webhook", "url": self.url}],
        }

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.taken.append(Taken(request.headers["webhook-id"], body))
        self.notice("taken")
        await self._open.wait()
        answer = web.Response(status=self.status)
        await answer.prepare(request)
        await answer.write_eof()
        self.notice("answered")
        return answer

    @contextlib.asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_post("/hook", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://127.0.0.1:{1}/hook".format(*runner.addresses[0])
        await self.server.start()
        try:
            yield
        finally:
            self._open.set()
            await self.server.stop()
            await runner.cleanup()


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Serve until the block ends."""
    with loop_elsewhere("outside") as loop:
        made = Outside(loop)
        with entered(made.serving(), loop):
            yield made
