"""What `cluster.restored` reports of the time without sight, and what the messages after it say."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.acceptance.following import CHAT, USUAL, Followed, followed
from tests.acceptance.test_reachability import ERRORS
from tests.controlplane.receivers import VALIDATOR
from tests.deployments import ZERO, Json, web
from tests.events import notification
from watcher.cluster.decode import snapshot_from
from watcher.core.delivery import Part
from watcher.core.events import Event
from watcher.core.model import DeploymentSnapshot
from watcher.core.policy import ClusterPolicy
from watcher.follower import Follower
from watcher.ports import Applied, Deleted, Listed, Opened, Probe, WatchEvent
from watcher.sinks.webhook import envelope
from watcher.view import View

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


BEFORE = [named("fell"), named("fell-untold", 1, 1), named("fine"), named("gone"), named("down", 0)]
AFTER = [
    named("fell", 0, turned=200), named("fell-untold", 0, 1), named("fine", turned=200),
    named("down", turned=200), named("new", 0, 1), named("long-down", 0, turned=-9),
]  # fmt: skip
CHANGED = {
    "degraded": ["fell none_available", "fell-untold none_available"],
    "returned": ["fine"],
    "recovered": ["down"],
    "deleted": ["gone deleted"],
}
"""`fell-untold` has no condition that says when, `new` and `long-down` nobody had seen before."""


async def restored_at_last(cluster: Followed) -> Event:
    """The server comes back at second 300 and shows what is true by now."""
    cluster.last_byte = None
    await cluster.at(295, [Listed("", shown(*AFTER, version=2)), Opened("")])
    await cluster.at(300, probe=ANSWERED)
    await cluster.at(310, probe=ANSWERED)
    [restored] = [e for e in cluster.recorded_events if e.type == "cluster.restored"]
    return restored


@pytest.mark.parametrize("probes", [3, 2], ids=["announced before it", "announced after it"])
async def test_a_restart_in_the_outage_tells_what_the_store_knows(tmp_path, probes):
    """Since when it is blind and what was true before, as if the process had been there all along."""
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", shown(*BEFORE)), Opened("")], ANSWERED)
        await cluster.at(100)
        cluster.last_byte = ZERO + timedelta(seconds=100)
        for at in (115, 130, 145)[:probes]:
            await cluster.at(at, probe=FAILED)
        await cluster.follower.stop(cluster.clock.now())
        await cluster.restart()
        for at in (160, 175, 190):
            await cluster.at(at, probe=FAILED)
        restored = await restored_at_last(cluster)
    assert restored.blind_for == 195
    assert told(restored) == CHANGED


@pytest.mark.parametrize("at", [50, 120, 200, 297, 305], ids=lambda at: f"at {at}")
async def test_a_takeover_tells_what_the_store_knows(tmp_path, at):
    """The replica that stood by has never judged anything of record, and tells the same."""
    async with followed(tmp_path) as writer:
        standby = Followed(writer.clock)
        standby.store, standby.views = writer.store, View()
        standby.follower = Follower(
            standby,
            standby.views,
            writer.store,
            writer.clock,
            CHAT,
            USUAL,
            ClusterPolicy(),
            standby,
        )
        steps: list[tuple[float, list[WatchEvent], Probe | None]] = [
            (0, [Listed("", shown(*BEFORE)), Opened("")], ANSWERED),
            (40, [], None),
            *((second, [], FAILED) for second in (115, 130, 145, 250)),
            (295, [Listed("", shown(*AFTER, version=2)), Opened("")], None),
            (300, [], ANSWERED),
            (310, [], ANSWERED),
        ]
        following = [writer, standby]
        for second, events, probe in steps:
            if second > at and len(following) == 2:
                writer.clock.set(ZERO + timedelta(seconds=at))
                await standby.follower.restore()
                following = [standby]
            for one in following:
                silent = 100 < second < 295
                one.last_byte = ZERO + timedelta(seconds=100) if silent else None
                one.clock.set(ZERO + timedelta(seconds=second))
                await one.follower.step(one.clock.now(), events, probe)
        [restored] = [e for e in standby.recorded_events if e.type == "cluster.restored"]
    assert restored.blind_for == 195
    assert told(restored) == CHANGED


async def test_what_nobody_had_seen_before_is_said_to_be_unknown(tmp_path):
    """The API server was down at the very first start: no number is told, and no word of health."""
    async with followed(tmp_path) as cluster:
        cluster.last_byte = ZERO
        for at in (15, 30, 45):
            await cluster.at(at, probe=FAILED)
        restored = await restored_at_last(cluster)
    assert restored.meanwhile is None
    text = notification(restored, Part.POST).message.text
    assert "Meanwhile what changed is not known in full." in text
