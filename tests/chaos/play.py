"""Deployments break and recover while the watcher is treated badly, and each time somebody must be told."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.controlplane.client import Json
from tests.outside import Outside
from watcher.testing.objects import deployment

NAMES = [f"web-{number}" for number in range(5)]
_NEVER_FLAPPING = {"cycles": 1000, "episodes": 1000}


class Play:
    """What happens to five Deployments, and what the receiver must have heard of it by now."""

    def __init__(self, world: Outside, tend: Callable[[], None], within: float = 30) -> None:
        self._world = world
        self._tend = tend
        self._within = within
        self._expected = Counter[str]()
        for name in NAMES:
            world.do(partial(world.server.apply, deployment("shop", name)))

    def config(self, folder: Path, url: str) -> Json:
        """Of a watcher that tells everything at once."""
        config = self._world.config(folder)
        config["health"] = {**config["health"], "flapping": _NEVER_FLAPPING}
        return {**config, "store": {"url": url}, "web": {"address": "127.0.0.1:0"}}

    def turn(self, name: str) -> None:
        """It breaks and it recovers; returns once both have been told."""
        for ready, kind in ((0, "degraded"), (3, "recovered")):
            self._world.set_ready(name, ready)
            self._expected[f"deployment.{kind} {name}"] += 1
            self._until_told()

    def _until_told(self) -> None:
        deadline = time.monotonic() + self._within
        while (told := self._told()) != self._expected:
            extra = told - self._expected
            assert not extra, f"told what did not happen, or anew: {extra}"
            assert time.monotonic() < deadline, f"not told: {self._expected - told}"
            self._tend()
            time.sleep(0.002)

    def _told(self) -> Counter[str]:
        """Without the alarms of a replica that cannot reach the store, which are not recorded."""
        return Counter(told for told in self._world.told if not told.startswith("store."))
