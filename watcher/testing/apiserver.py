"""An API server that knows Deployments only, on loopback, with the faults of real ones on demand."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final
from weakref import WeakSet

import msgspec
from aiohttp import web
from msgspec import Struct

from watcher.clock import SystemClock
from watcher.core.model import Json
from watcher.ports import Clock
from watcher.testing.objects import set_ready, stamp

_ROOT: Final = "/apis/apps/v1"
_LAST_BOOKMARK: Final = 1.5
"""Seconds before the end that a client has asked for, as with a real one."""
_END: Final = b""
"""Among the lines to be written to a watch: its orderly end."""


class Seen(Struct, frozen=True):
    """One request as it arrived."""

    verb: str
    """`list`, `page` (a continued list), `watch`, `get` or `version`."""
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: datetime


class Fault(Struct, frozen=True):
    """What goes wrong with one request, in place of the proper answer or on top of it."""

    verb: str = ""
    """Which request it waits for; empty is the next one of any kind."""
    status: int = 0
    """Answer this with `body` and `headers`; 0 answers properly."""
    body: bytes = b""
    headers: Mapping[str, str] = {}
    lines: bytes = b""
    """Written into a watch as they are, before anything else."""
    piece: int = 0
    """Cut `lines` into HTTP chunks of so many bytes."""
    ends: bool = False
    """End the watch in order once `lines` are out."""
    cut: int | None = None
    """Reset the connection after so many bytes of the body."""
    mute: bool = False
    """Take the request and never say a word, not even headers."""
    query: Mapping[str, str] = {}
    """Wait for a request that asks for this."""
    lasts: bool = False
    """Stay until it is taken out of the list."""

    def meets(self, verb: str, query: Mapping[str, str]) -> bool:
        """Tell whether it is for this request."""
        return self.verb in ("", verb) and self.query.items() <= query.items()


class _Change(Struct, frozen=True):
    version: int
    kind: str
    obj: Json
    before: Json | None
    line: bytes


class Backup(Struct, frozen=True):
    """A copy of the store, as JSON."""

    version: int
    objects: bytes


class _Stream:
    """One open watch: what waits to be written to it."""

    def __init__(self, wants: Callable[[Json], bool], since: int) -> None:
        self.wants = wants
        self.since = since
        """Nothing up to this version is news to it: from the future it hears nothing, for ever."""
        self.pending: list[bytes] = []
        self.news = asyncio.Event()

    def put(self, line: bytes) -> None:
        self.pending.append(line)
        self.news.set()

    def offer(self, change: _Change) -> None:
        """Put a change, as what it means to a watch with a selector."""
        if change.version <= self.since:
            return
        now = change.kind != "DELETED" and self.wants(change.obj)
        before = change.before is not None and self.wants(change.before)
        kind = {(True, True): "MODIFIED", (False, True): "ADDED", (True, False): "DELETED"}
        if (before, now) != (False, False):
            told = kind[before, now]
            self.put(change.line if told == change.kind else event(told, change.obj))


def event(kind: str, obj: object) -> bytes:
    """One line of a watch."""
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def status(code: int, reason: str = "", message: str = "", retry_after: int | None = None) -> Json:
    """The API's Status object of a failure."""
    details = {} if retry_after is None else {"details": {"retryAfterSeconds": retry_after}}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        **details,
        "code": code,
    }


class FakeApiServer:
    """Lists and watches Deployments that `apply` and `delete` change.

    `stop` is a crash that keeps the data; `start` comes back on the same port.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.port = port
        self.token = token
        """The bearer token to ask for; empty lets everybody in."""
        self.forbidden: set[tuple[str, str]] = set()
        """Pairs of verb and namespace (empty: cluster scope) that RBAC refuses."""
        self.insists_on = ""
        """A label selector without which an authorizer allows nothing (KEP-4601); empty for none."""
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.bookmark_every: float | None = 60.0
        """Seconds; None never sends any."""
        self.streams_last: float | None = None
        """Seconds until a watch ends, whatever the client asks for."""
        self.expired_as_event = False
        """Say 410 in the stream rather than by HTTP status."""
        self.version = 1000
        self._oldest = 0
        self._tls = tls
        self._clock = clock or SystemClock()
        self._objects: dict[tuple[str, str], Json] = {}
        self._history: deque[_Change] = deque(maxlen=100_000)
        self._streams: set[_Stream] = set()
        self._lists: dict[str, tuple[int, list[Json]]] = {}
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._runner: web.AppRunner | None = None
        self._transports: WeakSet[asyncio.Transport] = WeakSet()
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def kubeconfig(self) -> Json:
        """A kubeconfig that leads here (JSON is YAML)."""
        return {
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": self.token} if self.token else {}}],
        }

    async def start(self) -> None:
        """Listen; the first time on a free port unless one was given."""
        app = web.Application(middlewares=[_refusals])
        app.router.add_get("/version", self._version)
        app.router.add_get(_ROOT + "/deployments", self._collection)
        app.router.add_get(_ROOT + "/namespaces/{namespace}/deployments", self._collection)
        app.router.add_get(_ROOT + "/namespaces/{namespace}/deployments/{name}", self._object)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Reset every connection and stop listening."""
        self.reset_connections()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def reset_connections(self) -> None:
        """Cut off everybody who is connected."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    def silence(self, silent: bool = True) -> None:
        """Keep connections open but neither answer requests nor write to streams."""
        (self._speaking.clear if silent else self._speaking.set)()

    @property
    def watches(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once this holds; it is looked at whenever a request or a stream comes or goes."""
        if not predicate():
            true = asyncio.Event()
            self._waiting.append((predicate, true))
            await true.wait()

    def get(self, namespace: str, name: str) -> Json:
        """The stored object itself."""
        return self._objects[namespace, name]

    def has(self, namespace: str, name: str) -> bool:
        """Whether there is such a Deployment."""
        return (namespace, name) in self._objects

    def apply(self, obj: Json) -> None:
        """Create or replace a Deployment and tell the watches."""
        metadata = obj["metadata"]
        key = (metadata["namespace"], metadata["name"])
        before = self._objects.get(key)
        if before is not None:
            metadata.setdefault("uid", before["metadata"]["uid"])
        metadata.setdefault("creationTimestamp", stamp(self._clock.wall()))
        if before is not None and before["metadata"]["uid"] != metadata["uid"]:
            self.delete(*key)
            before = None
        kept: Json = msgspec.json.decode(msgspec.json.encode(obj))
        self._objects[key] = kept
        self._changed("ADDED" if before is None else "MODIFIED", kept, before)

    def set_ready(self, namespace: str, name: str, ready: int) -> None:
        """Let so many pods of a Deployment serve from now on."""
        obj: Json = msgspec.json.decode(msgspec.json.encode(self._objects[namespace, name]))
        set_ready(obj, ready, self._clock.wall())
        self.apply(obj)

    def delete(self, namespace: str, name: str) -> None:
        """Remove a Deployment and tell the watches."""
        obj = self._objects.pop((namespace, name))
        gone = {**obj, "metadata": dict(obj["metadata"])}
        self._changed("DELETED", gone, obj)

    def send(self, lines: bytes) -> None:
        """Write lines to every open watch as they are, outside of the history."""
        for stream in self._streams:
            stream.put(lines)

    def bookmark(self) -> None:
        """Send a bookmark to every open watch."""
        self.send(self._bookmark())

    def compact(self) -> None:
        """Forget the history: watches from older versions get 410, continue tokens too."""
        self._oldest = self.version
        self._history.clear()
        self._lists.clear()

    def backup(self) -> Backup:
        """Copy the store."""
        return Backup(self.version, msgspec.json.encode([*self._objects.values()]))

    def put_back(self, backup: Backup) -> None:
        """Take an older copy for the store: versions are lower from now on, and open watches silent."""
        for stream in self._streams:
            stream.since = self.version
        kept: list[Json] = msgspec.json.decode(backup.objects)
        self._objects = {(o["metadata"]["namespace"], o["metadata"]["name"]): o for o in kept}
        self.version = backup.version
        self._history.clear()
        self._oldest = self.version
        self._lists.clear()

    def end_streams(self) -> None:
        """End every open watch in order."""
        self.send(_END)

    def _changed(self, kind: str, obj: Json, before: Json | None) -> None:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        change = _Change(self.version, kind, obj, before, event(kind, obj))
        self._history.append(change)
        for stream in self._streams:
            stream.offer(change)

    def _bookmark(self) -> bytes:
        metadata = {"resourceVersion": str(self.version), "creationTimestamp": None}
        blank = {"selector": None, "template": {"metadata": {}, "spec": {"containers": None}}}
        return event(
            "BOOKMARK",
            {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": metadata, "spec": blank},
        )

    def _look(self) -> None:
        for waiting in [w for w in self._waiting if w[0]()]:
            self._waiting.remove(waiting)
            waiting[1].set()

    async def _admit(self, request: web.Request, verb: str) -> Fault:
        """Log a request and apply what stands against it: silence, scripted faults, no rights."""
        if request.transport is not None:
            self._transports.add(request.transport)
        seen = Seen(
            verb, request.path, dict(request.query), dict(request.headers), self._clock.now()
        )
        self.requests.append(seen)
        self._look()
        await self._speaking.wait()
        fault = next((f for f in self.faults if f.meets(verb, request.query)), None)
        if fault is not None:
            if not fault.lasts:
                self.faults.remove(fault)
            if fault.mute:
                await asyncio.Event().wait()
            if fault.status:
                raise _Refused(fault.status, fault.body, fault.headers)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise _failed(status(401, "Unauthorized", "Unauthorized"))
        namespace = request.match_info.get("namespace", "")
        selects = self.insists_on in ("", request.query.get("labelSelector")) or verb == "version"
        if not selects or ("list" if verb == "page" else verb, namespace) in self.forbidden:
            raise _failed(status(403, "Forbidden", f"deployments.apps is forbidden: cannot {verb}"))
        return fault or Fault()

    async def _version(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request, "version")
        return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.3"})

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request)
        return await self._list(request)

    async def _object(self, request: web.Request) -> web.StreamResponse:
        await self._admit(request, "get")
        found = self._objects.get((request.match_info["namespace"], request.match_info["name"]))
        if found is None:
            raise _failed(status(404, "NotFound", "deployments.apps not found"))
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    async def _list(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("continue", "")
        fault = await self._admit(request, "page" if token else "list")
        if token and token not in self._lists:
            raise _failed(status(410, "Expired", "the provided continue parameter is too old"))
        wants = _selection(request)
        version, rest = self._lists.pop(
            token, (self.version, [obj for _, obj in sorted(self._objects.items()) if wants(obj)])
        )
        limit = int(request.query.get("limit", "0")) or len(rest)
        page, rest = rest[:limit], rest[limit:]
        metadata = {"resourceVersion": str(version)}
        if rest:
            metadata["continue"] = f"{version}-{len(rest)}"
            self._lists[metadata["continue"]] = (version, rest)
        items = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in page]
        answer = {"kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": metadata}
        body = msgspec.json.encode({**answer, "items": items})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if fault.cut is None:
            response.enable_compression()
        await response.prepare(request)
        await self._write(request, response, body, fault)
        return response

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        fault = await self._admit(request, "watch")
        since = int(request.query.get("resourceVersion", "0"))
        stream = _Stream(_selection(request), since)
        if since < self._oldest:
            expired = status(410, "Expired", f"too old resource version: {since}")
            if not self.expired_as_event:
                raise _failed(expired)
            stream.put(event("ERROR", expired))
            stream.put(_END)
        for change in self._history:
            stream.offer(change)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        self._streams.add(stream)
        self._look()
        try:
            await self._write(request, response, fault.lines, fault)
            if not fault.ends:
                seconds = float(request.query["timeoutSeconds"])
                async for lines in self._news(stream, seconds):
                    await response.write(lines)
        finally:
            self._streams.discard(stream)
            self._look()
        return response

    async def _news(self, stream: _Stream, seconds: float) -> AsyncIterator[bytes]:
        """What is to be written to a watch, until it ends: just before that once more a bookmark."""
        now = asyncio.get_running_loop().time
        end = now() + (seconds if self.streams_last is None else self.streams_last)
        last = end if self.bookmark_every is None else now() + seconds - _LAST_BOOKMARK
        while True:
            every = end if self.bookmark_every is None else self.bookmark_every
            at = min(end, last if now() < last else end, now() + every)
            try:
                async with asyncio.timeout(max(at - now(), 0)):
                    await stream.news.wait()
            except TimeoutError:
                await self._speaking.wait()
                if now() >= end:
                    return
                if stream.since <= self.version:
                    stream.put(self._bookmark())
            await self._speaking.wait()
            stream.news.clear()
            lines, stream.pending = stream.pending, []
            yield b"".join(lines)
            if _END in lines:
                return

    async def _write(
        self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault
    ) -> None:
        whole = body if fault.cut is None else body[: fault.cut]
        for start in range(0, len(whole), fault.piece or len(whole) or 1):
            await response.write(whole[start : start + (fault.piece or len(whole))])
        if fault.cut is not None and request.transport is not None:
            request.transport.abort()


class _Refused(Exception):  # noqa: N818 - an answer rather than an error
    """The request ends with this answer."""

    def __init__(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.answer = web.Response(status=code, body=body, headers=headers)


def _failed(answer: Json) -> _Refused:
    headers = {"Content-Type": "application/json"}
    return _Refused(answer["code"], msgspec.json.encode(answer), headers)


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _Refused as refused:
        return refused.answer


def _selection(request: web.Request) -> Callable[[Json], bool]:
    """Which objects a request is about: its namespace, equality selectors, its name and no other's
    namespace."""
    namespace = request.match_info.get("namespace", "")
    selector = request.query.get("labelSelector", "")
    wanted = dict(term.replace("==", "=").split("=", 1) for term in selector.split(",") if term)
    fields = request.query.get("fieldSelector", "").split(",")
    excluded = {term.removeprefix("metadata.namespace!=") for term in fields}
    names = {term.removeprefix("metadata.name=") for term in fields if "metadata.name=" in term}

    def wants(obj: Json) -> bool:
        metadata = obj["metadata"]
        return (
            namespace in ("", metadata["namespace"])
            and metadata["namespace"] not in excluded
            and metadata["name"] in (names or {metadata["name"]})
            and wanted.items() <= (metadata.get("labels") or {}).items()
        )

    return wants
