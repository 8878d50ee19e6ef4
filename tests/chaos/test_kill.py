"""Killed at any moment, again and again: nothing is lost, and a double is recognisable as one."""

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.ledger import problems
from tests.chaos.lives import NEVER, Lives
from tests.chaos.play import NAMES, Play
from tests.outside import outside


async def killed(folder: Path, kills: int, seed: int) -> None:
    print(f"repeat with CHAOS_SEED={seed}")
    rng, url = random.Random(seed), f"sqlite:///{folder / 'watcher.db'}"
    with outside() as world:
        play = Play(world, lambda: lives.tend())
        file = folder / "config.yaml"
        file.write_text(json.dumps(play.config(folder, url)))
        lives = Lives(file, folder / "log", world, rng)
        try:
            while lives.deaths < kills:
                play.turn(rng.choice(NAMES))
            lives.end()
            lives.start(NEVER)
            play.turn(NAMES[0])
            assert lives.end(signal.SIGTERM) == 0
        finally:
            lives.end()
            print(*(folder / "log").read_text().splitlines()[-30:], sep="\n")
        taken = list(world.taken)
    print(
        f"{lives.deaths} kills, {len(taken)} requests, of which doubles:",
        len(taken) - len({one.id for one in taken}),
    )
    print(Counter(one.at for one in lives.failpoints))
    assert await problems(url, taken, lives.deaths + 1) == []


def seed() -> int:
    return int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))


async def test_twenty_kills(tmp_path: Path) -> None:
    """Row 25: F37, F38: at failpoints and at random moments; every change is told, in order, under one id."""
    await killed(tmp_path, 20, seed())


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_two_hundred_kills(tmp_path: Path) -> None:
    """The same for longer."""
    await killed(tmp_path, 200, seed())
