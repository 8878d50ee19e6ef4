"""When a changed file is read, and what is said of it: time moves by hand, files are real."""

import asyncio
import io
import json
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

from tests.deployments import ZERO
from tests.logs import captured
from watcher import audit
from watcher.config import Config
from watcher.config.load import Source
from watcher.core.model import Json
from watcher.errors import ConfigError
from watcher.metrics import Metrics
from watcher.reload import Reload
from watcher.testing.clock import ManualClock
from watcher.view import View

GOOD, OTHER, BAD = "health: {degraded_for: 1m}", "health: {degraded_for: 2m}", "health: 1"
SECRET = "sinks: [{name: hook, type: slack_webhook, url: {file: secret}}]"


class Looks(ManualClock):
    """Time that passes only once whoever looks has looked."""

    waits = 0

    async def wait(self, event: asyncio.Event, until: datetime | None) -> bool:
        self.waits += 1
        return await super().wait(event, until)


class Reloading:
    """A process in so far as it reloads."""

    def __init__(self, folder: Path, text: str, fails: str = "") -> None:
        self.file = folder / "config.yaml"
        self.write(text)
        self.clock, self.view, self.asked = Looks(ZERO), View(), asyncio.Event()
        self.adopted: list[Config] = []
        self.fails = fails
        source = Source(self.file, {}, {})
        metrics = Metrics(self.view, self.clock)
        self.reload = Reload(
            source, source.load(), self.adopt, self.asked, self.clock, self.view, metrics
        )

    def write(self, text: str | None) -> None:
        self.file.unlink(missing_ok=True)
        if text is not None:
            self.file.write_text(text)

    def adopt(self, config: Config) -> None:
        if self.fails:
            raise ConfigError([self.fails])
        self.adopted.append(config)

    async def looks(self, times: int = 1) -> None:
        for _ in range(times):
            before = self.clock.waits
            await self.clock.advance(5)
            await self.waits(before)

    async def signal(self) -> None:
        self.asked.set()
        await self.waits(self.clock.waits)

    async def waits(self, before: int) -> None:
        """Until it waits again, having read what it wants in a thread."""
        async with asyncio.timeout(5):
            while self.clock.waits == before:  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # noqa: TID251 - a real thread reads a real file

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.reload.run())
        await self.waits(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


def said(stream: io.StringIO) -> list[Json]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


COURSES = [
    pytest.param([GOOD, GOOD, GOOD], [], id="the same"),
    pytest.param([f"{GOOD} # why", GOOD, GOOD], [], id="the same in other words"),
    pytest.param([OTHER, OTHER, OTHER], ["reloaded"], id="changed"),
    pytest.param([OTHER, GOOD, GOOD], [], id="changed for a moment"),
    pytest.param([None, GOOD, GOOD], [], id="gone for a moment"),
    pytest.param([BAD, OTHER, OTHER], ["reloaded"], id="half written"),
    pytest.param(["", OTHER, OTHER], ["reloaded"], id="emptied, then written"),
    pytest.param([None] * 5, ["reload_failed"], id="gone"),
    pytest.param([BAD] * 5, ["reload_failed"], id="bad"),
    pytest.param([None, None, GOOD, GOOD], ["reload_failed", "reloaded"], id="gone and back"),
    pytest.param([BAD, BAD, None, None], ["reload_failed"] * 2, id="bad, then gone"),
    pytest.param([BAD, BAD, *[OTHER] * 4], ["reload_failed", "reloaded"], id="mended"),
    pytest.param([OTHER, OTHER, GOOD, GOOD], ["reloaded"] * 2, id="there and back"),
]


@pytest.mark.parametrize(("course", "expected"), COURSES)
async def test_what_is_said_of_a_file(
    tmp_path: Path, course: list[str | None], expected: list[str]
) -> None:
    """By what it holds at each look: what does not stand still is not read, and nothing said twice."""
    with captured() as stream:
        audit.configure(stream, "info", json=True)
        async with Reloading(tmp_path, GOOD) as it:
            await it.looks(3)
            for text in course:
                it.write(text)
                await it.looks()
            assert bool(it.view.config) == (expected[-1:] == ["reload_failed"])
        assert [line["event"] for line in said(stream)] == [f"config.{e}" for e in expected]


async def test_what_was_refused_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Secret may come after the ConfigMap that names it: then nobody need do anything."""
    monkeypatch.chdir(tmp_path)
    with captured() as stream:
        audit.configure(stream, "info", json=True)
        async with Reloading(tmp_path, GOOD) as it:
            it.write(SECRET)
            await it.looks(4)
            assert [line["event"] for line in said(stream)] == ["config.reload_failed"]
            assert it.adopted == []
            (tmp_path / "secret").write_text("https://hooks.example.com/T0/drawn-by-lot-1234")
            await it.looks()
        last = said(stream)[-1]
    assert (last["event"], last["changed"]) == ("config.reloaded", ["sinks"])
    assert "drawn-by-lot" not in stream.getvalue()


async def test_what_waits_for_a_restart(tmp_path: Path) -> None:
    """It is named, and what is adopted has it as it was at the start, however often it changes."""
    later = (
        "web: {address: ':1'}\nstore: {url: 'sqlite:///x.db', retain: 1d}\nclusters: [{name: b}]"
    )
    with captured() as stream:
        audit.configure(stream, "info", json=True)
        async with Reloading(tmp_path, GOOD) as it:
            for text in (later, f"{OTHER}\n{later}", later.replace("1d", "2d"), GOOD):
                it.write(text)
                await it.signal()
            assert it.view.config == ""
        named = [(line["changed"], line["needs_restart"]) for line in said(stream)]
    waits = ["clusters", "store", "web"]
    assert named == [([], waits), (["health"], waits), (["health"], waits), ([], [])]
    for config in it.adopted:
        assert config.model_copy(update={"health": Config().health}) == Config()


async def test_a_sink_that_cannot_be_built(tmp_path: Path) -> None:
    """It is a mistake like any other: nothing of that configuration is in force."""
    with captured() as stream:
        audit.configure(stream, "info", json=True)
        async with Reloading(tmp_path, GOOD, fails="sinks: chat: needs a package") as it:
            it.write(OTHER)
            await it.signal()
            await it.signal()
            assert it.view.config == "the newest is refused: sinks: chat: needs a package"
            it.fails = ""
            await it.signal()
        lines = said(stream)
    assert [line["event"].removeprefix("config.") for line in lines] == [
        "reload_failed", "reload_failed", "reloaded",  # whoever asks is answered each time
    ]  # fmt: skip
    assert lines[-1]["changed"] == ["health"]
