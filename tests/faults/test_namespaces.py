"""Namespaces that are left out: nobody hears of what is in them, and it costs nothing where it can."""

from tests.faults.warp import warped
from tests.faults.world import World
from watcher.testing.objects import deployment

LEFT_OUT = {"namespaces_exclude": ["kube-system", "dev-*"]}
NAMES = {"kube-system": "dns", "dev-1": "try", "devops": "tool"}


@warped
async def test_nobody_hears_of_what_is_left_out(tmp_path):
    """Also of a namespace that is new; the others are told of as ever."""
    w = World(tmp_path)
    async with w.open():
        for namespace, name in NAMES.items():
            w.server.apply(deployment(namespace, name))
        async with w.watcher(cluster=LEFT_OUT):
            await w.pass_time(10)
            w.server.apply(deployment("dev-new", "fresh"))
            for namespace, name in {**NAMES, "dev-new": "fresh"}.items():
                w.server.set_ready(namespace, name, 0)
            w.server.delete("dev-1", "try")
            await w.until(lambda: bool(w.told), within=60)
            w.server.end_streams()
            await w.pass_time(600)
            assert w.told == ["degraded tool"]
            assert {row["namespace"] for row in await w.rows()} == {"shop", "devops"}
            kept_by_server = {seen.query.get("fieldSelector") for seen in w.asked()}
            assert kept_by_server == {"metadata.namespace!=kube-system"}, "probes as well"
            shown = await w.get("/health/apiserver")
            assert shown["namespaces_exclude"] == ["kube-system", "dev-*"]
            assert [stream["deployments"] for stream in shown["streams"]] == [4]
            error = (await w.get("/health/deployments?namespace=dev-1"))["error"]
            assert error == "the namespace 'dev-1' is not watched"


@warped
async def test_what_is_left_out_from_now_on_is_closed(tmp_path):
    """As what a configuration names no more: whoever was told hears that it is watched no more."""
    w = World(tmp_path)
    async with w.open():
        for namespace, name in NAMES.items():
            w.server.apply(deployment(namespace, name))
        async with w.watcher():
            await w.pass_time(10)
            for namespace, name in NAMES.items():
                w.server.set_ready(namespace, name, 0)
            await w.pass_time(120)
            assert sorted(w.told) == ["degraded dns", "degraded tool", "degraded try"]
        async with w.watcher(cluster=LEFT_OUT):
            await w.pass_time(120)
            ended = {event["data"]["name"]: event["data"] for _, event in w.received[3:]}
            assert sorted(w.told[3:]) == ["closed dns", "closed try"]
            assert {data["resolution"] for data in ended.values()} == {"not_watched"}


@warped
async def test_a_namespace_that_is_not_there_shows_nothing(tmp_path):
    """The stream says so, and what comes into it is told of."""
    w = World(tmp_path)
    async with w.open(), w.watcher(cluster={"namespaces": ["shop", "shpo"]}):
        await w.pass_time(10)
        streams = (await w.get("/health/apiserver"))["streams"]
        assert {s["scope"]: s["deployments"] for s in streams} == {"shop": 3, "shpo": 0}
        w.server.apply(deployment("shpo", "late"))
        w.server.set_ready("shpo", "late", 0)
        await w.pass_time(120)
        assert w.told == ["degraded late"]
