"""A cluster that is configured no more: whoever was told of its incidents is told that they are over."""

from datetime import timedelta

from tests.acceptance.following import followed
from tests.deployments import ZERO, web
from watcher.cluster.decode import snapshot_from
from watcher.core.delivery import DeliveryState
from watcher.core.events import Edge, Resolution
from watcher.core.planning import Audience
from watcher.errors import Unreachable
from watcher.ports import Applied, Broken, Listed, Opened, Probe, Record
from watcher.recording import close_departed
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock

NAMES = [f"web-{number}" for number in range(12)]


async def test_what_is_open_is_closed(tmp_path):
    """Deployments, told alone and in a digest, and the cluster itself: once, and then it is forgotten."""
    async with followed(tmp_path) as cluster:
        healthy = tuple(snapshot_from(web(name=name), "prod") for name in ["alone", *NAMES])
        await cluster.at(0, [Listed("", healthy), Opened("")])
        await cluster.at(10, [Applied("", snapshot_from(web(1, name="alone"), "prod"))])
        broken = [Applied("", snapshot_from(web(1, name=name), "prod")) for name in NAMES]
        await cluster.at(200, broken)
        await cluster.at(300)
        cluster.last_byte = ZERO + timedelta(seconds=300)
        down = Unreachable("refused")
        for second in (400, 415, 430, 445):
            await cluster.at(second, [Broken("", down)], Probe(down))
        told = {event.incident for event in cluster.recorded_events}
        assert len(told) == 1 + 12 + 1 + 1, "one, twelve, their digest and the cluster"

    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    clock, records = ManualClock(ZERO + timedelta(hours=1)), list[Record]()
    audiences = [Audience("chat", chat=True, threads=True)]
    await close_departed(["prod"], store, clock, audiences, records.append)
    assert records == []
    for _ in (1, 2):
        await close_departed(["other"], store, clock, audiences, records.append)
    (record,) = records
    ended = [event for event in record.events if not event.digest]
    assert {event.incident for event in record.events} == told
    assert {event.edge for event in ended} == {Edge.CLOSED}
    assert {event.resolution for event in ended} == {Resolution.NOT_WATCHED}
    assert [event.type for event in ended if event.subject.is_cluster] == ["cluster.closed"]
    assert [event.edge for event in record.events if event.digest] == [Edge.RECOVERED]
    states = {d.state for d in record.deliveries}
    assert states == {DeliveryState.PENDING, DeliveryState.GROUPED}
    assert await store.clusters() == []
    assert list(await store.load("prod")) == []
    await store.close()
