"""Faults that are over before anybody is to be told: silence, with its reason on record."""

import json

from tests.faults.warp import warped
from tests.faults.world import World
from tests.logs import captured
from watcher import audit
from watcher.testing.objects import condition


def stall(world: World, status: str, reason: str) -> None:
    """Have the controller say of c how its rollout goes."""
    obj = world.server.get("shop", "c")
    condition(obj, "Progressing", status, reason, world.clock.now())
    world.server.apply(obj)


@warped
async def test_over_within_its_hold(tmp_path):
    """Row 38: nobody is told of what was down for 20 s, deleted meanwhile or not; the audit log says why.

    Neither of a rollout that counts as stalled until its controller manager has looked again.
    """
    world = World(tmp_path)
    with captured() as log:
        audit.configure(log, "info", json=True, clock=world.clock)
        async with world.open(), world.watcher():
            await world.pass_time(10)
            for name in "ab":
                world.server.set_ready("shop", name, 0)
            stall(world, "False", "ProgressDeadlineExceeded")
            await world.pass_time(1)
            stall(world, "True", "NewReplicaSetAvailable")
            await world.pass_time(19)
            world.server.set_ready("shop", "a", 3)
            world.server.delete("shop", "b")
            await world.pass_time(300)
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert world.told == []
    debounced = {ln["deployment"]: ln for ln in lines if ln["event"] == "incident.debounced"}
    assert debounced.keys() == {"a", "b", "c"}
    assert debounced["c"]["reason"] == "rollout_stalled"
    assert debounced["a"]["reason"] == "none_available"
    assert debounced["a"]["message"] == "0 of 3 replicas available, 3 needed"
    assert debounced["a"]["since"] < debounced["a"]["ts"] < debounced["a"]["due"]
