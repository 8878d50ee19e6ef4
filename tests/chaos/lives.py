"""A watcher with many lives: each is a fork of a process that has imported everything, and ends by SIGKILL."""

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from sqlalchemy import Engine, event
from sqlalchemy.pool import Pool

import watcher.stores.postgresql  # noqa: F401 - what a life would import
from tests.outside import Outside
from watcher import audit
from watcher.app import run
from watcher.config.load import load

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


class Failpoint(Struct, frozen=True):
    """Where a life ends."""

    at: str
    """before a `commit`, after it (`committed`), around its `checkpoint`; when a request is `taken`
    by the receiver, or just `answered`; or so many seconds after the start (`time`)."""
    count: float
    """The how manieth of them."""

    @classmethod
    def draw(cls, rng: random.Random) -> "Failpoint":
        at = rng.choice(["commit", "committed", "checkpoint", "taken", "answered", "time"])
        if at == "time":
            return cls(at, rng.uniform(0.05, 0.8))
        return cls(at, rng.randint(1, 3 if at in ("taken", "answered") else 12))


NEVER = Failpoint("time", 1e9)


class Lives:
    """One watcher, started again whenever it has died."""

    def __init__(self, config: Path, log: Path, outside: Outside, rng: random.Random) -> None:
        self.deaths = 0
        self.failpoints: list[Failpoint] = []
        self._config = config
        self._log = log
        self._outside = outside
        self._rng = rng
        self._failpoint = Failpoint("time", 0)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._began = 0.0
        self._left = 0.0

    def tend(self) -> None:
        """Let it die when its time has come, and then live again."""
        process = self._process
        if process is not None and process.is_alive():
            if self._failpoint.at == "time" and time.monotonic() - self._began > self._left:
                process.kill()
                process.join(10)
            return
        if process is not None:
            assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode}"
            self.deaths += 1
        self.start(Failpoint.draw(self._rng))

    def start(self, failpoint: Failpoint) -> None:
        self.failpoints.append(failpoint)
        self._failpoint, self._left = failpoint, failpoint.count
        self._outside.notice = self._noticed
        self._began = time.monotonic()
        process = CONTEXT.Process(
            target=_live, args=(str(self._config), str(self._log), failpoint), daemon=True
        )
        process.start()
        self._process = process

    def send(self, how: signal.Signals) -> None:
        """To the life that is on."""
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, how)

    def end(self, how: signal.Signals = signal.SIGKILL) -> int | None:
        """Of the life that is on."""
        process = self._process
        if process is None or process.pid is None:
            return None
        if process.is_alive():
            os.kill(process.pid, how)
        process.join(20)
        return process.exitcode

    def _noticed(self, moment: str) -> None:
        if moment == self._failpoint.at and self._process is not None:
            self._left -= 1
            if not self._left:
                self._process.kill()


def _live(config: str, log: str, failpoint: Failpoint) -> None:
    sys.stderr = open(log, "a", buffering=1)  # noqa: PTH123, SIM115 - as long as it lives
    audit.configure(sys.stderr, "info", json=True)
    _arm(failpoint)
    asyncio.run(run(load(Path(config), {}, {})))


def _arm(failpoint: Failpoint) -> None:
    """Count what the driver of the database reports, and die at the last."""
    left, delay = failpoint.count, 0.003 if failpoint.at == "checkpoint" else 0

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            threading.Timer(random.uniform(0, delay), die).start() if delay else die()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def checkpoint(connection: object, _: object) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 1")  # type: ignore[attr-defined]

    if failpoint.at in ("commit", "checkpoint"):
        event.listen(Engine, "commit", count)

    if failpoint.at == "committed":
        _after_each_commit(count)
    if failpoint.at == "checkpoint":
        event.listen(Pool, "connect", checkpoint)


def _after_each_commit(call: Callable[[], None]) -> None:
    class Counted(sqlite3.Connection):
        def commit(self) -> None:
            super().commit()
            call()

    def connect(_dialect: object, _record: object, where: Any, how: Any) -> object:  # noqa: ANN401
        return sqlite3.connect(*where, **how, factory=Counted)

    event.listen(Engine, "do_connect", connect)
