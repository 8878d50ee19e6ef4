"""What a complete list says beats what was learned before it was asked for, and nothing that came after."""

from datetime import timedelta

import pytest

from tests.acceptance.following import followed
from tests.acceptance.test_last_look import LOW, OK, UID, shown, start, told
from tests.acceptance.test_reachability import ERRORS
from tests.deployments import ZERO, web
from watcher.core.events import Resolution
from watcher.core.model import DeploymentSnapshot
from watcher.ports import Applied, Broken, Listed, Looked, Opened, Probe

FAILED, ANSWERED = Probe(ERRORS["fail"]), Probe()


def listed(at: float, *snapshots: DeploymentSnapshot) -> Listed:
    """A list that was asked for then."""
    return Listed("", snapshots, ZERO + timedelta(seconds=at))


async def test_a_lower_version_counts_when_a_list_has_it(tmp_path):
    """The store is an older copy: what it has is judged, and what happens in it from then on."""
    async with followed(tmp_path) as cluster:
        await cluster.at(0, [listed(0, shown(1000, web(3))), Opened("")])
        await cluster.at(30, [Broken("", None)])
        await cluster.at(31, [listed(30, shown(480, web(0))), Opened("")])
        await cluster.at(80)
        assert told(cluster) == ["degraded none_available"]
        await cluster.at(90, [Applied("", shown(501, web(3)))])
        await cluster.at(200)
    assert told(cluster) == ["degraded none_available", "recovered none_available"]


async def test_the_same_during_an_outage(tmp_path):
    """Also what the stream showed while the cluster was out of sight, lists and events alike."""
    async with followed(tmp_path) as cluster:
        await cluster.at(
            0, [listed(0, shown(1000, web(3)), shown(1001, web(3, name="b"))), Opened("")]
        )
        cluster.last_byte = ZERO
        for at in (15, 30, 45):
            await cluster.at(at, probe=FAILED)
        cluster.last_byte = None
        await cluster.at(60, [Applied("", shown(1002, web(1)))])
        await cluster.at(
            70, [listed(69, shown(480, web(3)), shown(481, web(3, name="b"))), Opened("")]
        )
        await cluster.at(75, [Applied("", shown(501, web(0, name="b")))])
        await cluster.at(80, probe=ANSWERED)
        await cluster.at(90, probe=ANSWERED)
        await cluster.at(300)
        cluster_events = [e.type for e in cluster.recorded_events if e.subject.is_cluster]
        names = [e.subject.name for e in cluster.recorded_events if not e.subject.is_cluster]
    assert cluster_events == ["cluster.unreachable", "cluster.restored"]
    assert names == ["b"]


async def test_a_deletion_that_the_copy_does_not_know(tmp_path):
    """Deleted out of sight, and there again before that was told: it is followed as before."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        await cluster.at(80)
        cluster.last_byte = ZERO + timedelta(seconds=80)
        for at in (95, 110, 125):
            await cluster.at(at, probe=FAILED)
        cluster.last_byte = None
        await cluster.at(130, [listed(129)])
        await cluster.at(140, [listed(139, LOW), Opened("")], ANSWERED)
        await cluster.at(150, probe=ANSWERED)
        await cluster.at(160, [Applied("", shown(501, web(3)))])
        await cluster.at(300)
    found = [line for line in told(cluster) if "unreachable" not in line]
    assert found == ["degraded below_minimum", "recovered below_minimum"]


GONE: Looked = {UID: Resolution.DELETED}
HEALED: Looked = {UID: shown(9, web(3))}


@pytest.mark.parametrize(
    ("look", "list_has"),
    [
        pytest.param(HEALED, (LOW,), id="it has healed"),
        pytest.param({UID: shown("b", web(3))}, (shown("c", web(1)),), id="versions that are no numbers"),
        pytest.param(GONE, (LOW,), id="it is gone"),
        pytest.param(HEALED, (), id="it is there"),
    ],
)  # fmt: skip
async def test_a_slow_list_undoes_no_newer_look(tmp_path, look, list_has):
    """Asked for before the look, and in after it: the look knows more, and the next list more than that."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        cluster.there = look
        await cluster.at(72)
        assert cluster.looks == [["web"]]
        await cluster.at(75, [listed(60, *list_has), Opened("")])
        rows = {t.snapshot.available for t in cluster.follower.view.tracked.values()}
        assert rows == (set() if look is GONE else {3})
        await cluster.at(200)
        assert told(cluster) == []
        await cluster.at(210, [listed(205, shown(1, web(0))), Opened("")])
        await cluster.at(300)
        assert told(cluster) == ["degraded none_available"]


async def test_a_look_does_not_hide_what_is_selected_no_more(tmp_path):
    """A look goes by name, whatever the labels: that it is there is no reason to follow it."""
    async with followed(tmp_path, selective=True) as cluster:
        await start(cluster, LOW)
        cluster.there = {UID: LOW}
        await cluster.at(72)
        await cluster.at(75, [listed(60), Opened("")])
    assert told(cluster) == ["degraded below_minimum", "closed left_scope"]
    assert cluster.follower.view.tracked == {}


async def test_a_list_knows_more_than_an_older_look(tmp_path):
    """Asked for after the look: it counts, whatever the versions say."""
    async with followed(tmp_path) as cluster:
        await start(cluster, LOW)
        cluster.there = {UID: LOW}
        await cluster.at(72)
        await cluster.at(80, [listed(75, OK), Opened("")])
        await cluster.at(200)
    assert told(cluster) == ["degraded below_minimum", "recovered below_minimum"]
