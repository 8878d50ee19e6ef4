"""Faults that are over before anybody is to be told: silence, with its reason on record."""

import json

from tests.faults.warp import warped
from tests.faults.world import World
from tests.logs import captured
from watcher import audit


@warped
async def test_over_within_its_hold(tmp_path):
    """Row 38: nobody is told of what was down for 20 s, deleted meanwhile or not; the audit log says why."""
    world = World(tmp_path)
    with captured() as log:
        audit.configure(log, "info", json=True, clock=world.clock)
        async with world.open(), world.watcher():
            await world.pass_time(10)
            for name in "ab":
                world.server.set_ready("shop", name, 0)
            await world.pass_time(20)
            world.server.set_ready("shop", "a", 3)
            world.server.delete("shop", "b")
            await world.pass_time(300)
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert world.told == []
    debounced = {ln["deployment"]: ln for ln in lines if ln["event"] == "incident.debounced"}
    assert debounced.keys() == {"a", "b"}
    assert debounced["a"]["reason"] == "none_available"
    assert debounced["a"]["message"] == "0 of 3 replicas available, 3 needed"
    assert debounced["a"]["since"] < debounced["a"]["ts"] < debounced["a"]["due"]
