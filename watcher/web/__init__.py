"""What the process says of itself over HTTP: read from the view, and nothing can be changed here."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client.exposition import gzip_accepted

from watcher.config.rules import parse_address
from watcher.config.secrets import redact
from watcher.core.message import visible
from watcher.errors import ConfigError, StoreError
from watcher.metrics import Metrics
from watcher.ports import Clock, Queued, Store
from watcher.view import ClusterView, View
from watcher.web.deployments import report, rows
from watcher.web.exposition import negotiate
from watcher.web.incidents import Incidents

_CONNECTIONS: Final = 100
_STORE_SECONDS: Final = 1.0
"""A scrape waits this long for the store."""
_encode: Final = msgspec.json.Encoder().encode


def make_app(
    view: View, store: Store, metrics: Metrics, clock: Clock, alive: Callable[[], Sequence[str]]
) -> web.Application:
    """All pages; `alive` names the loops that have ended although nobody asked them to."""
    pages = _Pages(view, store, metrics, clock, alive)
    ledger = Incidents(store)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=1024)
    app.on_response_prepare.append(_not_stored)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/health/apiserver", pages.apiserver)
    app.router.add_get("/health/deployments", pages.deployments)
    app.router.add_get("/metrics", pages.scrape)
    app.router.add_get("/api/incidents", ledger.newest)
    app.router.add_get("/api/incidents/{id}", ledger.one)
    return app


async def serve(app: web.Application, address: str) -> web.AppRunner:
    """Listen; the runner's `addresses` say where. Raises ConfigError when that cannot be."""
    host, port = parse_address(address)
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_no_callers_mistake)
    runner = web.AppRunner(
        app, access_log=None, logger=logger, keepalive_timeout=30, lingering_time=1,
        shutdown_timeout=2, max_line_size=4096,
    )  # fmt: skip
    await runner.setup()
    try:
        await _Site(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        why = error.strerror or str(error)
        raise ConfigError([f"web.address: cannot listen on {address}: {why}"]) from None
    return runner


def _is_no_callers_mistake(line: logging.LogRecord) -> bool:
    """Whoever can reach the port could fill the log with requests that are none."""
    return not (line.exc_info and isinstance(line.exc_info[1], HttpProcessingError))


class _Site(web.BaseSite):
    """Keeps few connections, so that whoever opens many takes no file from the watch or a sink.

    The oldest makes room: a probe that comes now is answered now.
    """

    def __init__(self, runner: web.AppRunner, host: str | None, port: int) -> None:
        super().__init__(runner)
        self._host, self._port = host, port

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        listen = asyncio.get_running_loop().create_server
        self._server = await listen(self._accept, self._host, self._port)

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None:
            raise ConnectionAbortedError("the web server has stopped")
        for oldest in server.connections[: 1 - _CONNECTIONS]:
            oldest.force_close()
        return server()


class _Pages(msgspec.Struct, frozen=True):
    view: View
    store: Store
    metrics: Metrics
    clock: Clock
    dead_loops: Callable[[], Sequence[str]]

    async def healthz(self, _: web.Request) -> web.Response:
        """Whether a restart would help: an API server that is down is no reason for one."""
        if dead := self.dead_loops():
            return _json({"status": "error", "dead_loops": dead}, 503)
        return _json({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether this process can be relied on, else why not."""
        if reasons := [_plain(reason) for reason in self.view.not_ready(self.clock.now())]:
            return _json({"status": "not_ready", "reasons": reasons}, 503)
        answer = {"status": "ok", "role": "writer" if self.view.leading else "standby"}
        if self.view.dead_man:
            answer["dead_man"] = f"withheld: {_plain(self.view.dead_man)}"
        if self.view.config:
            answer["config"] = _plain(self.view.config)
        return _json(answer)

    async def apiserver(self, request: web.Request) -> web.Response:
        """The last heartbeat's answer; of several clusters the worst, with each of them."""
        answers = {cluster.name: _probed(cluster) for cluster in self._asked(request)}
        failed = not answers or any(answer["status"] == "error" for answer in answers.values())
        status = 500 if failed else 200
        if len(answers) == 1:
            (answer,) = answers.values()
            return _json(answer, status)
        named = [{"cluster": name, **answer} for name, answer in answers.items()]
        return _json({"status": "error" if failed else "ok", "clusters": named}, status)

    async def deployments(self, request: web.Request) -> web.Response:
        """Every Deployment as last seen, without asking the API server."""
        found, now = self._asked(request), self.clock.now()
        namespace = request.query.get("namespace")
        seen = [cluster.as_of(now) for cluster in found]
        unlisted = [c.name for c, as_of in zip(found, seen, strict=True) if as_of is None]
        if unlisted or not found:
            error = f"the first list is not in yet: {', '.join(unlisted)}"
            return _json({"status": "unknown", "error": error}, 503)
        if namespace is not None and not any(c.watches(namespace) for c in found):
            raise web.HTTPNotFound(text=f"the namespace {_plain(namespace)!r} is not watched")
        told = [row for cluster in found for row in rows(cluster, namespace, now)]
        as_of = min(filter(None, seen))
        fresh = all(cluster.fresh(now) or namespace in cluster.shown(now) for cluster in found)
        # Ten thousand rows take some milliseconds that the watch need not wait for.
        return await asyncio.to_thread(lambda: _json(report(told, as_of, fresh)))

    async def scrape(self, request: web.Request) -> web.Response:
        """For Prometheus; while the store does not answer, without the queue's numbers."""
        queue: Sequence[Queued] = ()
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                queue = await self.store.queue()
        except (StoreError, TimeoutError):
            self.metrics.store_errors.inc()
        encode, kind = negotiate(",".join(request.headers.getall("Accept", [])))
        headers = {"Content-Type": kind, "Vary": "Accept, Accept-Encoding"}
        answer = web.Response(body=self.metrics.render(queue, encode), headers=headers)
        if gzip_accepted(request.headers.get("Accept-Encoding", "")):
            answer.enable_compression(web.ContentCoding.gzip)
        return answer

    def _asked(self, request: web.Request) -> Sequence[ClusterView]:
        name = request.query.get("cluster")
        if name is None:
            return list(self.view.clusters.values())
        if name not in self.view.clusters:
            raise web.HTTPNotFound(text=f"no cluster is called {_plain(name)!r}")
        return [self.view.clusters[name]]


def _probed(cluster: ClusterView) -> dict[str, object]:
    held = Counter(t.scope for t in cluster.tracked.values())
    streams = [_stream(scope, cluster, held[scope]) for scope in cluster.scopes]
    about: dict[str, object] = {"streams": streams}
    if cluster.excluded.patterns:
        about["namespaces_exclude"] = cluster.excluded.patterns
    if cluster.probe is None:
        return {"status": "error", "error": "not probed yet", **about}
    told: dict[str, object] = {"status": "ok", "version": cluster.version}
    if cluster.probe.error is not None:
        told = {"status": "error", "error": _plain(str(cluster.probe.error))}
    return {**told, "checked_at": cluster.probed_at, **about}


def _stream(scope: str, cluster: ClusterView, held: int) -> dict[str, object]:
    """How a list-watch stands and what it holds; the scope is a namespace, empty for all of them."""
    state = cluster.scopes[scope]
    error = None if state.error is None else _plain(str(state.error))
    about = msgspec.structs.asdict(cluster.stream(scope))
    return {"scope": scope, "open": state.open, "error": error, "deployments": held, **about}


def _plain(text: str) -> str:
    """What came from outside, without secrets and in one bounded line."""
    return visible(redact(text), 500)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(value), status=status, content_type="application/json")


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        error.body = _encode({"status": "error", "error": error.text})
        error.content_type = "application/json"
        raise


async def _not_stored(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
