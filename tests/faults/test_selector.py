"""An authorizer that allows lists and watches of one label selector, and nothing else (KEP-4601)."""

import copy

from tests.faults.warp import warped
from tests.faults.world import World
from watcher.testing.objects import deployment

SELECTOR = "team=web"
LABELS = {"team": "web"}


@warped
async def test_nothing_is_asked_for_without_the_selector(tmp_path):
    """No heartbeat is refused, a page goes out after a second look, and no end claims a deletion."""
    w = World(tmp_path)
    w.server.insists_on = SELECTOR
    async with w.open(), w.watcher(cluster={"label_selector": SELECTOR}):
        for name in ("moves", "goes", "stays"):
            w.server.apply(deployment("shop", name, labels=LABELS))
        await w.pass_time(20)
        for name in ("moves", "goes", "a"):
            w.server.set_ready("shop", name, 0)
        await w.pass_time(60)
        assert sorted(w.told) == ["degraded goes", "degraded moves"]
        moved = copy.deepcopy(w.server.get("shop", "moves"))
        moved["metadata"]["labels"] = {}
        w.server.apply(moved)
        w.server.delete("shop", "goes")
        await w.pass_time(600)
        ends = [event["data"] for _, event in w.received[2:]]
        assert {(end["name"], end["resolution"]) for end in ends} == {
            ("moves", "left_scope"), ("goes", "left_scope"),
        }  # fmt: skip
        for end in ends:
            assert "no longer shows up under the watcher's label selector" in end["summary"]
            assert "delet" not in end["summary"]
        assert (await w.get("/health/apiserver"))["status"] == "ok"
        assert {seen.query.get("labelSelector") for seen in w.asked()} == {SELECTOR}
