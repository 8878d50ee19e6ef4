"""Secrets rotate without a restart, and are in no output whatever goes wrong."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.delivery.rig import Rig, rig
from tests.deployments import ZERO
from tests.fault_server import (
    Behaviour,
    FaultServer,
    Request,
    answers,
    never_ends,
    resets,
    talks_nonsense,
)
from watcher.adapters import make_sink
from watcher.config import Config
from watcher.config.load import load
from watcher.ports import Sink
from watcher.testing.clock import ManualClock
from watcher.testing.slack import CHANNEL, FakeSlack
from watcher.web import make_app

SECRETS = {
    "slack-token": "xoxb-4711-secret-of-slack",
    "slack-url": "services/T0SECRET/B0SECRET/incoming-secret",
    "hook-url": "hooks/secret-path-of-the-hook?key=secret-query-of-the-hook",
    "hook-basic": "secret-basic-password",
    "hook-key": "whsec_" + base64.b64encode(b"secret-key-of-the-webhooks!").decode(),
    "hook-header": "Bearer secret-header-of-the-hook",
    "am-url": "secret-prefix-of-the-alertmanager",
    "am-header": "Bearer secret-header-of-the-alertmanager",
    "pager-key": "secretkeyofpagerduty0123456789ab",
    "proxy": "secret-password-of-the-proxy",
}
TELLING = [
    *SECRETS.values(), "incoming-secret", "T0SECRET", "c2VjcmV0LWtleS1vZi10aGUtd2ViaG9va3Mh",
    base64.b64encode(b"user:secret-basic-password").decode(),
    base64.b64encode(b"user:secret-password-of-the-proxy").decode(),
]  # fmt: skip


def echoes(server: FaultServer, status: int) -> Behaviour:
    """An error page that shows the whole request, as a debugging proxy would."""

    async def behave(reader: Any, writer: Any) -> None:  # noqa: ANN401 - streams
        seen: Request = server.requests[-1]
        page = f"{server.url}{seen.path} {dict(seen.headers)} {seen.body.decode()}"
        await answers(status, page.encode())(reader, writer)

    return behave


FAULTS: dict[str, Callable[[FaultServer], Behaviour]] = {
    **{
        f"echoed with {status}": partial(echoes, status=status)
        for status in (200, 302, 400, 401, 403, 404, 410, 413, 429, 500, 503)
    },
    "reset": lambda _: resets,
    "nonsense": lambda _: talks_nonsense,
    "endless": lambda _: never_ends,
    "moved": lambda server: answers(308, location=f"{server.url}/{SECRETS['hook-url']}"),
}


def settings(folder: Path, url: str) -> Config:
    """A sink of each kind that posts, with every secret that it can have."""
    for name, value in SECRETS.items():
        (folder / name).write_text(value)
    base, host = url, url.partition("://")[2]
    for name in ("slack-url", "am-url"):
        (folder / name).write_text(f"{base}/{SECRETS[name]}")
    basic = f"http://user:{SECRETS['hook-basic']}@{host}"
    (folder / "hook-url").write_text(f"{basic}/{SECRETS['hook-url']}")

    def kept(name: str) -> dict[str, str]:
        return {"file": str(folder / name)}

    header = {"Authorization": kept("hook-header")}
    sinks: list[dict[str, Any]] = [
        {"type": "slack", "token": kept("slack-token"), "channel": CHANNEL, "api_url": f"{base}/api/"},
        {"type": "slack_webhook", "url": kept("slack-url")},
        {"type": "webhook", "url": kept("hook-url"), "secrets": [kept("hook-key")]},
        {"type": "webhook", "format": "alertmanager", "url": f"{base}/v4", "headers": header},
        {"type": "alertmanager", "urls": [kept("am-url")],
         "headers": {"Authorization": kept("am-header")}},
        {"type": "pagerduty", "routing_key": kept("pager-key"), "url": f"{base}/v2/enqueue"},
    ]  # fmt: skip
    named = [{"name": f"s{number}", **sink} for number, sink in enumerate(sinks)]
    file = folder / "config.yaml"
    file.write_text(json.dumps({"sinks": named}))
    return load(file, {}, {})


async def outputs(it: Rig, config: Config) -> AsyncIterator[tuple[str, str]]:
    """Everything that anybody can read of the process."""
    yield "log", it.log
    yield "metrics", it.metrics.render(await it.store.queue()).decode()
    yield "history", repr(await it.store.history(limit=1000))
    yield "view", repr(it.view.sink_troubles)
    yield "configuration", repr(config) + json.dumps(config.masked())
    app = make_app(it.view, it.store, it.metrics, it.clock, list)
    async with TestClient(TestServer(app)) as client:
        for page in ("/healthz", "/readyz", "/metrics", "/health/apiserver"):
            yield page, await (await client.get(page)).text()


def made(config: Config, clock: ManualClock) -> Sequence[Sink]:
    sinks = [make_sink(sink, clock) for sink in config.sinks]
    for sink in sinks:
        sink.sender.total = 2  # type: ignore[attr-defined]
    return sinks


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_no_output_has_a_secret(
    tmp_path: Path, clock: ManualClock, fault: Callable[[FaultServer], Behaviour]
) -> None:
    """Row 52: at DEBUG, under each fault, of each sink: not in logs, metrics, pages, history."""
    async with FaultServer(answers(200)) as server:
        server.usual = fault(server)
        config = settings(tmp_path, server.url)
        async with rig(tmp_path, *made(config, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(400)
            seen = [(name, text) async for name, text in outputs(it, config)]
        assert it.lines("notification.queued")
        assert server.requests
    for name, text in seen:
        assert [secret for secret in TELLING if secret in text] == [], name


async def test_no_receiver_gets_anothers_secret(tmp_path: Path, clock: ManualClock) -> None:
    """Row 52: each request has the secrets of its own sink at most, and no body has any but its key."""
    async with FaultServer(answers(500)) as server:
        config = settings(tmp_path, server.url)
        async with rig(tmp_path, *made(config, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(100)
    own = {"/api": "slack-token", "/v2": "pager-key", "/v4": "hook-header"}
    for request in server.requests:
        allowed = [name for start, name in own.items() if request.path.startswith(start)]
        if not allowed:
            allowed = ["slack-url", "am-url", "am-header", "hook-url", "hook-basic"]
        text = f"{request.path} {dict(request.headers)} {request.body.decode()}"
        others = [value for name, value in SECRETS.items() if name not in allowed]
        assert [value for value in others if value in text] == []


@pytest.mark.parametrize("status", [407, None, 503], ids=["407", "down", "it echoes"])
async def test_a_proxys_password_is_a_secret_too(
    tmp_path: Path, clock: ManualClock, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 24, 52: a proxy that refuses or is down is told without its password."""
    proxy = FaultServer(answers(status or 200))
    async with proxy:
        host = proxy.url.partition("://")[2]
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"http://user:{SECRETS['proxy']}@{host}")
        proxy.usual = echoes(proxy, 503) if status == 503 else proxy.usual
        if status is None:
            await proxy.stop()
        config = settings(
            tmp_path, "http://hooks.svc" if status == 503 else "https://hooks.example"
        )
        async with rig(tmp_path, *made(config, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(10)
            seen = [(name, text) async for name, text in outputs(it, config)]
    assert ("http_503" if status == 503 else "proxy_failed") in seen[0][1]
    for name, text in seen:
        assert [secret for secret in TELLING if secret in text] == [], name


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """A mounted Secret: its files are links into a folder that is swapped."""
    for generation in ("old", "new"):
        (tmp_path / generation).mkdir()
    (tmp_path / "old" / "token").write_text("xoxb-revoked")
    (tmp_path / "new" / "token").write_text("xoxb-valid")
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "token").symlink_to("..data/token")
    yield tmp_path


def swap(files: Path) -> None:
    (files / "..next").symlink_to("new")
    (files / "..next").rename(files / "..data")


async def test_a_token_is_rotated_in_its_mounted_secret(files: Path, clock: ManualClock) -> None:
    """Rows 11, 51: a revoked token parks; once the file has another, all arrives in order."""
    async with FakeSlack(clock, token="xoxb-valid") as slack:
        sinks = [
            {"name": "oncall", "type": "slack", "token": {"file": str(files / "token")},
             "channel": CHANNEL, "api_url": slack.api_url}
        ]  # fmt: skip
        config = load(None, {"WATCHER_SINKS": json.dumps(sinks)}, {})
        async with rig(files, *made(config, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(60)
            await it.opens("api")
            await it.passes(14 * 60)
            assert slack.messages == []
            assert len(it.lines("notification.parked")) <= 4
            swap(files)
            await it.ends("web")
            await it.passes(301)
            assert set((await it.states("oncall")).values()) <= {"delivered", "superseded"}
    api, web = sorted(slack.messages, key=lambda post: "shop/web" in post.text)
    assert "Unavailable: Deployment shop/api" in api.text
    assert "Delayed" in api.shown
    assert "Recovered: Deployment shop/web" in web.text
