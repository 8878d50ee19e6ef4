"""Two replicas whose way to their PostgreSQL hangs and breaks: nothing is lost, nothing told anew."""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.chaos.ledger import problems
from tests.chaos.lives import NEVER, Lives
from tests.chaos.play import NAMES, Play
from tests.outside import outside
from tests.postgres import Postgres
from tests.relay import Relay, relay
from watcher.stores.database import migrate

SHORTLY = {"cut": 5, "hang": 1}
FOR_LONG = {"cut": 5, "hang": 2, "hang for long": 1, "kill": 1}
"""Of what happens, how often."""


class Replica:
    """One process with a way of its own to the database."""

    def __init__(self, lives: Lives, way: Relay) -> None:
        self.lives = lives
        self._way = way
        self._resumes_at: float | None = None

    def suffer(self, what: str) -> None:
        match what:
            case "cut":
                self._way.cut()
            case "hang" | "hang for long":
                self._way.pause()
                self._resumes_at = time.monotonic() + (0.5 if what == "hang" else 20)
            case _:
                self.lives.end()
                self.lives.start(NEVER)

    def end(self) -> None:
        """In order, so that what was just sent is settled."""
        self._way.resume()
        self.lives.end(signal.SIGTERM)

    def tend(self) -> None:
        if self._resumes_at is not None and time.monotonic() > self._resumes_at:
            self._way.resume()
            self._resumes_at = None


async def disturbed(
    postgres: Postgres, folder: Path, count: int, mix: dict[str, int], seed: int
) -> None:
    print(f"repeat with CHAOS_SEED={seed}")
    rng, url = random.Random(seed), postgres.database()
    migrate(url)
    parts = urlsplit(url)
    socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    happened = Counter[str]()
    next_at = time.monotonic() + 4

    with outside() as world, contextlib.ExitStack() as stack:
        replicas: list[Replica] = []

        def tend() -> None:
            nonlocal next_at
            for replica in replicas:
                replica.tend()
            if time.monotonic() > next_at and happened.total() < count:
                what = rng.choices(list(mix), list(mix.values()))[0]
                rng.choice(replicas).suffer(what)
                happened[what] += 1
                next_at = time.monotonic() + rng.uniform(0.1, 0.8)

        play = Play(world, tend, within=60)
        for name in ("one", "two"):
            way = stack.enter_context(relay(socket))
            own = folder / name
            own.mkdir()
            config = play.config(own, f"postgresql://postgres@127.0.0.1:{way.port}{parts.path}")
            (own / "config.yaml").write_text(json.dumps(config))
            lives = Lives(own / "config.yaml", own / "log", world, rng)
            stack.callback(lives.end)
            lives.start(NEVER)
            replicas.append(Replica(lives, way))
        try:
            while happened.total() < count:
                play.turn(rng.choice(NAMES))
            play.turn(NAMES[0])
            for replica in replicas:
                replica.end()
        finally:
            for name in ("one", "two"):
                print(*(folder / name / "log").read_text().splitlines()[-30:], sep="\n")
        taken = list(world.taken)
    print(dict(happened), f"{len(taken)} requests")
    assert await problems(url, taken, happened.total()) == []


def seed() -> int:
    return int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))


async def test_cut_and_paused(postgres: Postgres, tmp_path: Path) -> None:
    """Connections of either are reset or hang for a moment, fifteen times."""
    await disturbed(postgres, tmp_path, 15, SHORTLY, seed())


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_taken_over_again_and_again(postgres: Postgres, tmp_path: Path) -> None:
    """A hundred times, with hangs longer than the lease and kills in between."""
    await disturbed(postgres, tmp_path, 100, FOR_LONG, seed())
