"""What the process says of itself over HTTP: read from the view, and nothing can be changed here."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from watcher.config.rules import parse_address
from watcher.config.secrets import redact
from watcher.core.message import visible
from watcher.core.model import DeliveryState
from watcher.errors import ConfigError, StoreError
from watcher.metrics import Metrics
from watcher.ports import Clock, Store
from watcher.view import ClusterView, View
from watcher.web.deployments import report, rows

_STORE_SECONDS: Final = 1.0
"""A scrape waits this long for the store."""
_encode: Final = msgspec.json.Encoder().encode
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    view: View, store: Store, metrics: Metrics, clock: Clock, alive: Callable[[], Sequence[str]]
) -> web.Application:
    """All pages; `alive` names the loops that have ended although nobody asked them to."""
    pages = _Pages(view, store, metrics, clock, alive)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=1024)
    app.on_response_prepare.append(_not_stored)
    app.add_routes(
        [
            web.get("/healthz", pages.healthz),
            web.get("/readyz", pages.readyz),
            web.get("/health/apiserver", pages.apiserver),
            web.get("/health/deployments", pages.deployments),
            web.get("/metrics", pages.metrics),
        ]
    )
    return app


async def serve(app: web.Application, address: str) -> web.AppRunner:
    """Listen; the runner's `addresses` say where. Raises ConfigError when that cannot be."""
    host, port = parse_address(address)
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_no_callers_mistake)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=logger,
        keepalive_timeout=30,
        lingering_time=1,
        shutdown_timeout=2,
        max_line_size=4096,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        why = error.strerror or str(error)
        raise ConfigError([f"web.address: cannot listen on {address}: {why}"]) from None
    return runner


def _is_no_callers_mistake(line: logging.LogRecord) -> bool:
    """Whoever can reach the port could fill the log with requests that are none."""
    return not (line.exc_info and isinstance(line.exc_info[1], HttpProcessingError))


class _Pages:
    def __init__(
        self,
        view: View,
        store: Store,
        metrics: Metrics,
        clock: Clock,
        alive: Callable[[], Sequence[str]],
    ) -> None:
        self._view = view
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._dead_loops = alive

    async def healthz(self, _: web.Request) -> web.Response:
        """Whether a restart would help: an API server that is down is no reason for one."""
        dead = self._dead_loops()
        if dead:
            return _json({"status": "error", "dead_loops": dead}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether this process can be relied on yet, else why not."""
        reasons = [_plain(reason) for reason in self._view.not_ready()]
        if reasons:
            answer = {"status": "not_ready", "reasons": reasons}
            return _json(answer, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ok"})

    async def apiserver(self, request: web.Request) -> web.Response:
        """The last heartbeat's answer; of several clusters the worst, with each of them."""
        found = self._asked(request)
        answers = [_probe(cluster) for cluster in found]
        failed = not answers or any(answer["status"] == "error" for answer in answers)
        status = HTTPStatus.INTERNAL_SERVER_ERROR if failed else HTTPStatus.OK
        if len(found) == 1:
            return _json(answers[0], status)
        named = [{"cluster": c.name, **a} for c, a in zip(found, answers, strict=True)]
        return _json({"status": "error" if failed else "ok", "clusters": named}, status)

    async def deployments(self, request: web.Request) -> web.Response:
        """Every Deployment as last seen, without asking the API server."""
        found, now = self._asked(request), self._clock.now()
        namespace = request.query.get("namespace")
        ages = [cluster.as_of(now) for cluster in found]
        unlisted = [c.name for c, as_of in zip(found, ages, strict=True) if as_of is None]
        if unlisted or not found:
            error = f"the first list is not in yet: {', '.join(unlisted)}"
            answer = {"status": "unknown", "error": error}
            return _json(answer, HTTPStatus.SERVICE_UNAVAILABLE)
        if namespace is not None and not any(_watches(c, namespace) for c in found):
            raise web.HTTPNotFound(text=f"the namespace {_plain(namespace)!r} is not watched")
        told = [row for cluster in found for row in rows(cluster, namespace, now)]
        as_of = min(filter(None, ages))
        fresh = all(cluster.fresh(now) for cluster in found)
        # Ten thousand rows take some milliseconds that the watch need not wait for.
        return _body(await asyncio.to_thread(lambda: _encode(report(told, as_of, fresh))))

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus; while the store does not answer, without the queue's numbers."""
        queue: Sequence[tuple[str, DeliveryState, int, datetime]] | None = None
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                queue = await self._store.queue(self._clock.now())
        except (StoreError, TimeoutError):
            self._metrics.store_errors.inc()
        return web.Response(
            body=self._metrics.render(queue), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def _asked(self, request: web.Request) -> Sequence[ClusterView]:
        name = request.query.get("cluster")
        if name is None:
            return list(self._view.clusters.values())
        if name not in self._view.clusters:
            raise web.HTTPNotFound(text=f"no cluster is called {_plain(name)!r}")
        return [self._view.clusters[name]]


def _probe(cluster: ClusterView) -> Mapping[str, object]:
    if cluster.probe is None:
        return {"status": "error", "error": "not probed yet"}
    if cluster.probe.error is not None:
        error = _plain(str(cluster.probe.error))
        return {"status": "error", "error": error, "checked_at": cluster.probed_at}
    return {"status": "ok", "version": cluster.version, "checked_at": cluster.probed_at}


def _watches(cluster: ClusterView, namespace: str) -> bool:
    return "" in cluster.scopes or namespace in cluster.scopes


def _plain(text: str) -> str:
    """What came from outside, without secrets and in one bounded line."""
    return visible(redact(text), 500)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return _body(_encode(value), status)


def _body(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = _json({"status": "error", "error": error.text}, HTTPStatus(error.status))
        if allowed := error.headers.get("Allow"):
            answer.headers["Allow"] = allowed
        return answer


async def _not_stored(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
