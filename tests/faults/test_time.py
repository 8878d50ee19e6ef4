"""A machine that sleeps, and a wall clock that steps: watch reference §5, F41 and F42."""

import copy
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.warp import START, WarpedClock, warped
from tests.faults.world import World
from watcher.testing.apiserver import FakeApiServer

HOUR = 3600


class Laptop(WarpedClock):
    """Its time goes on while it sleeps, that of the event loop does not; its wall clock may be off."""

    asleep = timedelta(0)
    off_by = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.asleep

    def wall(self) -> datetime:
        return self.now() + self.off_by


def on(laptop: Laptop, folder: Path) -> World:
    made = World(folder)
    made.clock, made.server = laptop, FakeApiServer(clock=laptop)
    return made


@warped
async def test_f41(tmp_path):
    """Row 48: F41, asleep for an hour. It lists first, and no limit has run on in its sleep."""
    laptop = Laptop()
    world = on(laptop, tmp_path)
    async with world.open(), world.watcher():
        await world.pass_time(10)
        rolling = copy.deepcopy(world.server.get("shop", "a"))
        rolling["metadata"]["generation"] = rolling["status"]["observedGeneration"] = 2
        rolling["status"]["updatedReplicas"] = 1
        world.server.apply(rolling)
        for name in "bc":
            world.server.set_ready("shop", name, 0)
        await world.pass_time(15)
        laptop.asleep += timedelta(seconds=HOUR)
        world.server.set_ready("shop", "b", 3)
        woke = world.seconds
        await world.until(lambda: world.told == ["degraded c"], 90)
        assert world.lists(since=woke)
        assert world.told_at("degraded c") > (world.lists(since=woke)[0].at - START).total_seconds()
        await world.pass_time(700)
        assert world.told == ["degraded c"]
        await world.until(lambda: world.told == ["degraded c", "degraded a"], 300)
        assert world.told_at("degraded a") - woke == pytest.approx(15 * 60 - 15, abs=60)


@pytest.mark.parametrize("minutes", [-10, 10])
@warped
async def test_f42(tmp_path, minutes):
    """F42: the wall clock steps by ten minutes in a hold: it ends when it would have."""
    laptop = Laptop()
    world = on(laptop, tmp_path)
    async with world.open(), world.watcher():
        await world.pass_time(10)
        began = world.seconds
        world.server.set_ready("shop", "a", 1)
        await world.pass_time(20)
        laptop.off_by = timedelta(minutes=minutes)
        await world.until(lambda: bool(world.told), 60)
        assert world.told_at("degraded a") - began == pytest.approx(60, abs=2)
        world.server.set_ready("shop", "a", 3)
        await world.pass_time(20)
        laptop.off_by = timedelta(0)
        await world.pass_time(90)
        assert world.told == ["degraded a", "recovered a"]
        assert world.told_at("recovered a") - began == pytest.approx(140, abs=20)
