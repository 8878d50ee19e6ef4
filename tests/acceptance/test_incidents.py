"""What one incident is: told once, by its own id, with the worst of it, whatever happens around it."""

from datetime import timedelta

import pytest

from tests.acceptance.following import Followed, followed
from tests.deployments import ZERO, Json, stamp, web
from watcher.cluster.decode import snapshot_from
from watcher.core.compose import compose
from watcher.core.delivery import Part
from watcher.core.events import Edge
from watcher.core.policy import HealthPolicy
from watcher.ports import Applied, Deleted, Listed, Opened

AT_ONCE = HealthPolicy(
    degraded_for=timedelta(0), none_available_for=timedelta(0), recovered_for=timedelta(0)
)


def seen(version: int, obj: Json) -> Applied:
    obj["metadata"]["resourceVersion"] = str(version)
    return Applied("", snapshot_from(obj, "prod"))


async def start(cluster: Followed) -> None:
    await cluster.at(0, [Listed("", (seen(1, web(3)).snapshot,)), Opened("")])


@pytest.mark.parametrize(
    ("annotation", "at"),
    [
        pytest.param({}, 70, id="after its hold"),
        pytest.param({"silence_until": stamp(300)}, 300, id="after a silence"),
    ],
)
async def test_what_is_announced_has_the_numbers_of_now(tmp_path, annotation, at):
    """Four of eight were left when the hold began, two when it ended: two is what on-call reads."""
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [Listed("", (seen(1, web(8, 8)).snapshot,)), Opened("")])
        await cluster.at(10, [seen(2, web(4, 8, **annotation))])
        await cluster.at(30 if at == 70 else 200, [seen(3, web(2, 8, **annotation))])
        await cluster.at(at)
    told = cluster.recorded_events[-1]
    assert told.message == "2 of 8 replicas available, 7 needed"
    assert told.facts is not None
    assert told.facts.available == 2


async def test_what_was_worse_in_between_is_told(tmp_path):
    """Slack was down while it got worse and eased: the late message says how bad it was."""
    async with followed(tmp_path) as cluster:
        await start(cluster)
        for at, available in ((10, 1), (80, 0), (90, 1), (100, 3)):
            await cluster.at(at, [seen(at, web(available))])
        await cluster.at(160)
    opened, worse, eased, end = cluster.recorded_events
    late = compose(eased, latest=eased, part=Part.POST, covers=(opened, worse, eased), now=eased.at)
    assert late.state == "Degraded"
    assert "At its worst nothing served." in late.text
    over = compose(end, latest=end, part=Part.EDIT, now=end.at)
    assert "At its worst nothing served." in over.text
    assert "worst" not in compose(opened, latest=opened, part=Part.POST, now=opened.at).text


@pytest.mark.parametrize(
    ("end", "words"),
    [
        pytest.param(
            seen(3, web(1, deleting=True)), "is being deleted", id="finalizers hold it"
        ),
        pytest.param(Deleted("", snapshot_from(web(1), "prod")), "was deleted", id="gone"),
    ],
)  # fmt: skip
async def test_a_deletion_is_told_as_far_as_it_is(tmp_path, end, words):
    """One in the foreground, or with a finalizer, may hang for hours: its pods can still be there."""
    async with followed(tmp_path) as cluster:
        await start(cluster)
        await cluster.at(10, [seen(2, web(1))])
        await cluster.at(100, [end])
        told = cluster.recorded_events[-1]
        await cluster.at(200, [Deleted("", snapshot_from(web(1), "prod"))])
    assert cluster.recorded_events[-1] == told, "once is enough"
    message = compose(told, latest=told, part=Part.EDIT, now=told.at)
    assert f"Closed: Deployment shop/web in prod {words}." in message.text
    assert told.resolution == "deleted"


async def test_what_opens_twice_at_one_instant_is_two_incidents(tmp_path):
    """Down, up, down and scaled to zero in one instant: no incident takes another's id."""
    async with followed(tmp_path, health=AT_ONCE) as cluster:
        await start(cluster)
        for version, obj in enumerate((web(0), web(3), web(0), web(0, 0)), 2):
            await cluster.at(10, [seen(version, obj)])
    told = [(e.edge, e.incident) for e in cluster.recorded_events]
    assert [edge for edge, _ in told] == [
        Edge.DEGRADED, Edge.RECOVERED, Edge.DEGRADED, Edge.CLOSED,
    ]  # fmt: skip
    assert len({incident for _, incident in told}) == 2


async def test_an_opening_that_no_sink_wants_is_not_repeated(tmp_path):
    """With nobody to tell it is recorded once, however often the Deployment changes after it."""
    async with followed(tmp_path, audiences=()) as cluster:
        await start(cluster)
        for version in range(2, 9):
            await cluster.at(version * 30, [seen(version, web(1, revision=version))])
    assert [e.edge for e in cluster.recorded_events] == [Edge.DEGRADED]


async def test_a_limit_that_is_over_is_not_waited_for_again(tmp_path):
    """The grace of a raise is over and the store refuses: told a second later, not a hold later."""
    async with followed(tmp_path) as cluster:
        await start(cluster)
        await cluster.at(10, [seen(2, web(3, 9, updated=9, capacity="True"))])
        await cluster.at(609)
        cluster.refusals = 1
        await cluster.at(612)
    [event] = cluster.recorded_events
    assert (event.reason, (event.at - ZERO).total_seconds()) == ("below_minimum", 611)


async def test_a_store_that_works_again_is_not_waited_for(tmp_path):
    """It refused for minutes, so that the next try is half a minute off: told as soon as it works."""
    async with followed(tmp_path) as cluster:
        await start(cluster)
        await cluster.at(10, [seen(2, web(1))])
        cluster.refusals = 1000
        await cluster.at(240)
        cluster.refusals = 0
        assert (due := cluster.follower.next_due()) is not None
        assert due - cluster.clock.now() > timedelta(seconds=10)
        cluster.follower.store_restored()
        await cluster.at(240)
    [event] = cluster.recorded_events
    assert (event.reason, (event.at - ZERO).total_seconds()) == ("below_minimum", 240)


async def test_refused_openings_keep_the_hold_of_what_is_true_by_then(tmp_path):
    """The store refused an opening at once; what is seen before the next try has its own hold."""
    at_once = HealthPolicy(rollout_stalled_for=timedelta(0))
    async with followed(tmp_path, health=at_once) as cluster:
        await start(cluster)
        stalled = web(
            3, updated=1, total=4, reason="ProgressDeadlineExceeded", progressing="False", moved=9
        )
        cluster.refusals = 1
        await cluster.at(10, [seen(2, stalled)])
        await cluster.at(10.5, [seen(3, web(1))])
        await cluster.at(69)
        assert cluster.recorded_events == []
        await cluster.at(71)
    assert [e.reason for e in cluster.recorded_events] == ["below_minimum"]
