"""The ledger as JSON: which incidents there are, and all that is on record of one."""

import asyncio
import re
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from watcher.config.secrets import redact
from watcher.core.events import ENDS, Event
from watcher.core.message import visible
from watcher.errors import StoreError
from watcher.ports import Store

T = TypeVar("T")
_SECONDS: Final = 2.0
"""So long an answer waits for the store."""
_MOST: Final = 500


class Incidents(msgspec.Struct, frozen=True):
    """Pages that read the store, and so only what is on record, whichever replica answers."""

    store: Store

    async def newest(self, request: web.Request) -> web.Response:
        """`?open=true`, `?namespace=`, `?limit=`: as each stands now, the newest first."""
        query = request.query
        found = await self._ask(
            self.store.incidents(
                still_open=_asked(query, "open", "true|false") == "true",
                namespace=query.get("namespace", ""),
                limit=min(int(_asked(query, "limit", "[1-9][0-9]{0,5}") or 100), _MOST),
            )
        )
        return _json({"incidents": [_incident(event) for event in found]})

    async def one(self, request: web.Request) -> web.Response:
        """One incident with its events and who was told of them; of a long one the newest."""
        name = request.match_info["id"]
        newest = await self._ask(self.store.incidents(incident=name))
        if not newest:
            raise web.HTTPNotFound(text="no incident has this id, of which messages show the end")
        events = await self._ask(self.store.events(name))
        rows = await self._ask(self.store.history(incident=name, limit=_MOST))
        told = [{"id": each.id, "type": each.type} | _plain(each) for each in events[-_MOST:]]
        deliveries = [_plain(row.as_json()) for row in rows]
        return _json({**_incident(newest[0]), "events": told, "deliveries": deliveries})

    async def _ask(self, what: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_SECONDS):
                return await what
        except (StoreError, TimeoutError):
            raise web.HTTPServiceUnavailable(text="the store does not answer") from None


def _incident(newest: Event) -> dict[str, Any]:
    """An incident as its newest event leaves it."""
    over = newest.edge in ENDS
    told: dict[str, Any] = _plain(newest)
    fields = ("opened_at", "since", "reason", "severity", "message", "resolution", "sequence")
    ended_at = newest.at if over else None
    about: dict[str, Any] = {"id": newest.incident, "open": not over, "ended_at": ended_at}
    return {**about, **told["subject"], **{field: told[field] for field in fields}}


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    """With every field, and what came from outside without secrets and in bounded lines."""
    match value:
        case str():
            return visible(redact(value), 2000)
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case msgspec.Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case _:
            return value


def _asked(query: Mapping[str, str], name: str, allowed: str) -> str:
    value = query.get(name, "")
    if name in query and not re.fullmatch(allowed, value):
        raise web.HTTPBadRequest(text=f"{name} must be {allowed}")
    return value


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
