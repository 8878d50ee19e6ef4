"""The ledger over HTTP: from a real store, bounded, newest first, and nothing can be changed."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deliveries import NOW, delivery, event, told
from watcher.config.secrets import hide
from watcher.core.delivery import DeliveryState
from watcher.core.events import Edge
from watcher.metrics import Metrics
from watcher.ports import Record, Settlement, Store
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock
from watcher.view import View
from watcher.web import make_app, serve

Get = Callable[..., Awaitable[Any]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'watcher.db'}")
    yield opened
    await opened.close()


@pytest.fixture
async def get(store: Store) -> AsyncIterator[Get]:
    clock, view = ManualClock(NOW), View()
    app = make_app(view, store, Metrics(view, clock), clock, list)
    runner = await serve(app, "127.0.0.1:0")
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as session:

        async def ask(path: str, status: int = 200, method: str = "GET") -> Any:  # noqa: ANN401
            async with session.request(method, url + path) as answer:
                assert answer.status == status, await answer.text()
                assert answer.content_type == "application/json"
                return await answer.json()

        yield ask
    await runner.cleanup()


async def test_incidents_are_listed(store: Store, get: Get) -> None:
    """As each stands now, the newest first; open ones, of a namespace, or so many."""
    for number in (1, 2, 3):
        await store.record(told(event(number)), NOW)
    await store.record(told(event(2, 2, Edge.RECOVERED)), NOW)
    found = (await get("/api/incidents"))["incidents"]
    assert [(one["name"], one["open"]) for one in found] == [
        ("app-3", True),
        ("app-2", False),
        ("app-1", True),
    ]
    assert found[1]["ended_at"] == "2026-11-22T12:00:02Z"
    assert found[0].items() >= {
        "id": event(3).incident, "cluster": "prod", "namespace": "shop", "uid": "uid-3",
        "severity": "warning", "reason": "below_minimum", "ended_at": None, "sequence": 1,
    }.items()  # fmt: skip

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await get(f"/api/incidents?{query}"))["incidents"]]

    assert await names("open=true") == ["app-3", "app-1"]
    assert await names("open=false") == ["app-3", "app-2", "app-1"]
    assert await names("limit=1") == ["app-3"]
    assert await names("limit=99999") == ["app-3", "app-2", "app-1"]
    assert await names("namespace=other") == []


async def test_one_incident_has_all_that_is_on_record(store: Store, get: Get) -> None:
    """Its events in order, and who was told what; secrets and control characters are not in it."""
    opened, ended = event(1), event(1, 2, Edge.RECOVERED)
    held = delivery(opened, "chat", state=DeliveryState.SUPPRESSED, reason="silenced")
    await store.record(Record(events=(opened,), deliveries=(delivery(opened), held)), NOW)
    (claimed,) = await store.claim("hook", NOW, 1)
    hide("a-secret-of-the-receiver")
    detail = "no\x1b[31m a-secret-of-the-receiver"
    dead = Settlement(
        claimed.delivery.id, DeliveryState.DEAD, NOW, reason="http_400", detail=detail
    )
    await store.settle(dead)
    await store.record(told(ended), NOW)
    found = await get(f"/api/incidents/{opened.incident}")
    assert (found["id"], found["open"]) == (opened.incident, False)
    assert [(one["id"], one["type"]) for one in found["events"]] == [
        (opened.id, "deployment.degraded"),
        (ended.id, "deployment.recovered"),
    ]
    rows = {(one["sink"], one["event_id"]): one for one in found["deliveries"]}
    assert len(rows) == 3
    assert rows["chat", opened.id]["reason"] == "silenced"
    assert rows["hook", opened.id]["error"] == "no ***"
    assert rows["hook", ended.id]["state"] == "pending"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (
            "/api/incidents/unheard-of",
            404,
            "no incident has this id, of which messages show the end",
        ),
        ("/api/incidents?open=maybe", 400, "open must be true|false"),
        ("/api/incidents?open=", 400, "open must be true|false"),
        ("/api/incidents?limit=0", 400, "limit must be"),
        ("/api/incidents?limit=-1", 400, "limit must be"),
    ],
)
async def test_what_cannot_be_answered(get: Get, path: str, status: int, words: str) -> None:
    assert words in (await get(path, status))["error"]


async def test_nothing_can_be_changed(store: Store, get: Get) -> None:
    await store.record(told(event(1)), NOW)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        await get("/api/incidents", 405, method)
        await get(f"/api/incidents/{event(1).incident}", 405, method)


async def test_a_store_that_fails_is_said_so(tmp_path: Path, get: Get) -> None:
    with closing(sqlite3.connect(tmp_path / "watcher.db")) as db:
        db.execute("DROP TABLE incidents")
    assert (await get("/api/incidents", 503))["error"] == "the store does not answer"
