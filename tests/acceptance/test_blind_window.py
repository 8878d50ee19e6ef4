"""What `cluster.restored` reports of the time without sight, and what the messages after it say."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.acceptance.following import Followed, followed
from tests.acceptance.test_reachability import ERRORS
from tests.controlplane.receivers import VALIDATOR
from tests.deployments import ZERO, Json, web
from tests.events import notification
from watcher.cluster.decode import snapshot_from
from watcher.core.model import DeploymentSnapshot, Edge, Event, Part
from watcher.ports import Applied, Deleted, Listed, Opened, Probe, WatchEvent
from watcher.sinks.webhook import envelope

FAILED, ANSWERED = Probe(ERRORS["fail"]), Probe()


def named(name: str, available: int = 3, desired: int = 3, **fields: Any) -> Json:  # noqa: ANN401
    return web(available, desired, name=name, **fields)


def shown(*objs: Json, version: int = 1) -> tuple[DeploymentSnapshot, ...]:
    for obj in objs:
        obj["metadata"]["resourceVersion"] = str(version)
    return tuple(snapshot_from(obj, "prod") for obj in objs)


async def outage(cluster: Followed, before: list[Json], after: list[Json]) -> Event:
    """Seen until second 100, blind until 400; gives the event that ends the outage."""
    await cluster.at(0, [Listed("", shown(*before)), Opened("")], ANSWERED)
    await cluster.at(100)
    cluster.last_byte = ZERO + timedelta(seconds=100)
    for at in (115, 130, 145, 300):
        await cluster.at(at, probe=FAILED)
    cluster.last_byte = None
    await cluster.at(395, [Listed("", shown(*after, version=2)), Opened("")])
    await cluster.at(400, probe=ANSWERED)
    await cluster.at(410, probe=ANSWERED)
    [restored] = [e for e in cluster.recorded_events if e.type == "cluster.restored"]
    return restored


def told(event: Event) -> dict[str, list[str]]:
    """The names of each kind in the report."""
    report = event.meanwhile
    assert report is not None
    kinds = {kind: getattr(report, kind) for kind in report.__struct_fields__}
    return {
        kind: [f"{c.name} {c.reason}".strip() for c in changes.deployments]
        for kind, changes in kinds.items()
        if changes.count
    }


NONE: dict[str, list[str]] = {}
WINDOWS = {
    "nothing changed": ([named("a")], [named("a")], NONE),
    "a new version, as well as before": ([named("a")], [named("a", revision=2)], NONE),
    "went down": ([named("a")], [named("a", 0, turned=200)], {"degraded": ["a none_available"]}),
    "went down without a condition to say when": (
        [named("a", 1, 1)], [named("a", 0, 1)], {"degraded": ["a none_available"]}),
    "was down all along": ([named("a", 1)], [named("a", 1, revision=2)], NONE),
    "down before, came back": ([named("a", 0)], [named("a", turned=200)], {"recovered": ["a"]}),
    "went down and came back": ([named("a")], [named("a", turned=200)], {"returned": ["a"]}),
    "deleted": ([named("a"), named("b")], [named("b")], {"deleted": ["a deleted"]}),
    "recreated": ([named("a")], [named("a", uid="2")], {"deleted": ["a recreated"]}),
    "created in it and well": ([], [named("a", turned=200)], NONE),
    "is to be ignored": ([named("a")], [named("a", 0, turned=200, ignore="true")], NONE),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), WINDOWS.values(), ids=WINDOWS.keys())
async def test_the_report(tmp_path, before, after, expected):
    """It names what degraded and still is, what came back, what recovered and what is gone."""
    for obj in after:
        if obj["metadata"]["name"] == "a" and not before:
            obj["metadata"]["creationTimestamp"] = "2026-01-01T00:03:00Z"
    async with followed(tmp_path) as cluster:
        restored = await outage(cluster, before, after)
    assert told(restored) == expected
    assert restored.blind_for == 295  # from the first failed probe
    VALIDATOR.validate(msgspec.json.decode(msgspec.json.encode(envelope(notification(restored)))))


async def test_recreated_as_the_stream_shows_it(tmp_path):
    """The watch goes on where it was: one that was deleted and made anew is not told as gone for good."""
    async with followed(tmp_path) as cluster:
        before, after = shown(named("a")), shown(named("a", uid="2"), version=2)
        await cluster.at(0, [Listed("", before), Opened("")], ANSWERED)
        cluster.last_byte = ZERO
        for at in (15, 30, 45):
            await cluster.at(at, probe=FAILED)
        cluster.last_byte = None
        news: list[WatchEvent] = [
            Deleted("", before[0]),
            Applied("", after[0]),
            Listed("", after),
            Opened(""),
        ]
        await cluster.at(395, news)
        await cluster.at(400, probe=ANSWERED)
        await cluster.at(410, probe=ANSWERED)
        [restored] = [e for e in cluster.recorded_events if e.type == "cluster.restored"]
    assert told(restored) == {"deleted": ["a recreated"]}


async def test_the_report_is_bounded_and_its_counts_are_exact(tmp_path):
    """Sixty gone at once: all are counted, 25 are named, and the webhook stays under 64 KiB."""
    names = [f"{'x' * 240}-{n:03}" for n in range(60)]
    async with followed(tmp_path) as cluster:
        down = [named(name, 0, turned=200) for name in names]
        restored = await outage(cluster, [named(name) for name in names], down)
    assert restored.meanwhile is not None
    degraded = restored.meanwhile.degraded
    assert (degraded.count, len(degraded.deployments)) == (60, 25)
    message = notification(restored, Part.POST).message
    assert len(message.lines) == 26
    assert message.lines[-1] == "and 35 more degraded and still are"


async def test_messages_that_follow_name_the_outage(tmp_path):
    """What began, ended or fell due out of sight says so; what came after it does not."""
    async with followed(tmp_path) as cluster:
        before = [named("fell"), named("rose", 1), named("gone", 1), named("stays", 1)]
        after = [named("fell", 1, turned=380), named("rose", turned=200), named("stays", 1)]
        await outage(cluster, before, after)
        again = [named("fell", 1, turned=380), named("rose"), named("stays", 0)]
        await cluster.at(600, [Listed("", shown(*again, version=3)), Opened("")])
        await cluster.at(700)
    found = {
        f"{e.subject.name} {e.edge}": e.unseen for e in cluster.recorded_events if e.subject.name
    }
    assert found == {
        "gone degraded": False, "rose degraded": False, "stays degraded": False,
        "gone closed": True, "fell degraded": True, "rose recovered": True,
        "stays updated": False,
    }  # fmt: skip


async def test_a_restart_in_the_outage_still_tells_its_whole_length(tmp_path):
    """A process that was not there when sight was lost knows from its store since when it is."""
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", shown(named("a"))), Opened("")], ANSWERED)
        cluster.last_byte = ZERO
        for at in (15, 30, 45):
            await cluster.at(at, probe=FAILED)
        await cluster.restart()
        cluster.last_byte = None
        after = [named("a", 0, turned=20), named("b", turned=20), named("c", 0, turned=-9)]
        await cluster.at(200, [Listed("", shown(*after, version=2)), Opened("")])
        await cluster.at(300, probe=ANSWERED)
        await cluster.at(310, probe=ANSWERED)
    [restored] = [e for e in cluster.recorded_events if e.edge is Edge.RECOVERED]
    assert restored.blind_for == 295
    assert told(restored) == {"degraded": ["a none_available"], "returned": ["b"]}
