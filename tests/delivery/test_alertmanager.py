"""What Alertmanager hears of an incident: resolved is only what it was told to be firing."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.delivery.rig import CRITICAL, WARNING, Rig, rig
from tests.deployments import ZERO
from tests.fault_server import FaultServer, answers
from watcher.core.events import Edge
from watcher.restating import Restating
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.http import Sender
from watcher.testing.clock import ManualClock


class Peer:
    """An Alertmanager that takes alerts, as long as its status is 200, and knows until when each fires."""

    def __init__(self, server: FaultServer, clock: ManualClock) -> None:
        self.server = server
        self.server.usual = self._take
        self.status = 200
        self.told: list[str] = []
        """`firing critical web`, in the order in which they came."""
        self.ends: dict[str, datetime] = {}
        self.clock = clock
        self._seen = 0

    @property
    def news(self) -> list[str]:
        """What it has taken since it was asked last."""
        before, self._seen = self._seen, len(self.told)
        return self.told[before:]

    def never_fired(self) -> list[str]:
        """What was resolved without having fired before."""
        return [
            one
            for number, one in enumerate(self.told)
            if one.replace("resolved", "firing") not in self.told[: number + 1]
        ]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.status == 200:
            for alert in json.loads(self.server.requests[-1].body):
                name = f"{alert['labels']['severity']} {alert['labels']['deployment']}"
                self.ends[name] = datetime.fromisoformat(alert["endsAt"])
                firing = self.ends[name] > self.clock.now()
                self.told.append(f"{'firing' if firing else 'resolved'} {name}")
        await answers(self.status)(reader, writer)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO)


@pytest.fixture
async def peer(clock: ManualClock) -> AsyncIterator[Peer]:
    async with FaultServer(answers(500)) as server:
        yield Peer(server, clock)


@asynccontextmanager
async def running(folder: Path, peer: Peer, before: Rig | None = None) -> AsyncIterator[Rig]:
    """A watcher; after `before`, on the same store."""
    clock = peer.clock
    sink = Alertmanager("am", Sender(clock), urls=[lambda: peer.server.url])
    async with rig(folder, sink, clock=clock) as it:
        if before is not None:
            await it.resumes(before.incidents)
        yield it


async def tells_again(it: Rig) -> None:
    sink = it.dispatchers["am"].sink
    assert isinstance(sink, Alertmanager)
    await Restating(sink, it.store, it.clock, it.reporting).step(it.clock.now())


async def test_what_was_critical_from_the_start_ends_once(tmp_path: Path, peer: Peer) -> None:
    async with running(tmp_path, peer) as it:
        await it.opens("web")
        await it.passes(60)
        await tells_again(it)
        await it.ends("web")
        await it.passes(10)
        assert peer.told == ["firing critical web"] * 2 + ["resolved critical web"]


async def test_a_severity_that_changes_ends_each_alert_when_it_is_over(
    tmp_path: Path, peer: Peer
) -> None:
    """The former one is resolved with the change, and told again for five minutes; not with the end."""
    async with running(tmp_path, peer) as it:
        await it.opens("web", severity=WARNING)
        await it.passes(60)
        await it.changes("web", CRITICAL)
        await it.passes(60)
        assert peer.news == ["firing warning web", "resolved warning web", "firing critical web"]
        await tells_again(it)
        assert sorted(peer.news) == ["firing critical web", "resolved warning web"]
        await it.passes(300)
        await tells_again(it)
        assert peer.news == ["firing critical web"]
        await it.ends("web")
        await it.passes(10)
        assert peer.news == ["resolved critical web"]
        await tells_again(it)
        assert peer.news == ["resolved critical web"]


async def test_a_restart_remembers_what_has_fired(tmp_path: Path, peer: Peer) -> None:
    """It is in the store, for the next process and for a reload alike."""
    async with running(tmp_path, peer) as it:
        await it.opens("web", severity=WARNING)
        await it.opens("api")
        await it.passes(60)
    for name in ("web", "api"):
        async with running(tmp_path, peer, it) as it:
            await it.ends(name)
            await it.passes(10)
    assert sorted(peer.told) == [
        "firing critical api", "firing warning web",
        "resolved critical api", "resolved warning web",
    ]  # fmt: skip


async def test_what_was_given_up_has_not_fired(tmp_path: Path, peer: Peer) -> None:
    """The worse news were refused for good: the end is one of the warning that it knows."""
    async with running(tmp_path, peer) as it:
        await it.opens("web", severity=WARNING)
        await it.passes(1)
        peer.status = 400
        await it.changes("web", CRITICAL)
        await it.passes(1)
        assert (await it.states("am"))["web/2 event"] == "dead"
        peer.status = 200
        await tells_again(it)
        await it.ends("web")
        await it.passes(10)
        assert peer.told == ["firing warning web"] * 2 + ["resolved warning web"]


async def test_an_end_whose_opening_became_too_old(tmp_path: Path, peer: Peer) -> None:
    """Nothing fired, so nothing is resolved, and nothing is said to fire that is over."""
    peer.status = 503
    async with running(tmp_path, peer) as it:
        await it.opens("web")
        await it.passes(60)
        it.clock.set(it.clock.now() + timedelta(hours=73))
        await it.passes(60)
        await it.ends("web")
        await it.passes(60)
        peer.status = 200
        await tells_again(it)
        await it.passes(600)
        assert await it.states("am") == {"web/1 event": "expired", "web/2 event": "delivered"}
        assert peer.told == []


@pytest.mark.parametrize("ended", [False, True], ids=["while it stands", "after its end"])
async def test_what_is_sent_once_more_fires_nothing_that_is_over(
    tmp_path: Path, peer: Peer, ended: bool
) -> None:
    """An opening that was given up, redriven after newer news: they are what is true."""
    peer.server.script = [answers(400)] * 2
    async with running(tmp_path, peer) as it:
        await it.opens("web", severity=WARNING)
        await it.passes(1)
        await it.changes("web", CRITICAL)
        await it.passes(1)
        if ended:
            await it.ends("web")
            await it.passes(1)
        [dead] = [row.delivery.id for row in await it.rows("am") if row.delivery.state == "dead"]
        known = peer.news
        assert await it.store.redrive([dead], it.clock.now(), "op", after_end=True)
        await it.passes(10)
        assert set((await it.states("am")).values()) == {"delivered"}
        assert peer.news == []
        if not ended:
            await it.ends("web")
        await it.passes(10)
        assert [*known, *peer.news] == ["firing critical web", "resolved critical web"]


async def test_a_peer_that_answers_with_an_error_is_not_asked_every_two_seconds(
    tmp_path: Path, peer: Peer
) -> None:
    """Though the other one is away: that one costs nothing, this one has its backoff."""
    async with FaultServer(answers(200)) as other:
        away = other.url
    peer.status = 503
    urls = [lambda: away, lambda: peer.server.url]
    async with rig(
        tmp_path, Alertmanager("am", Sender(peer.clock), urls=urls), clock=peer.clock
    ) as it:
        await it.opens("web")
        await it.passes(60)
        assert len(peer.server.requests) < 10
        assert {line["reason"] for line in it.lines("notification.deferred")} == {"http_503"}


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_happens_only_what_fired_is_resolved(
    tmp_path: Path, peer: Peer, seed: int
) -> None:
    """Severities, refusals, outages, rounds and restarts in any order; at the end nothing fires on."""
    draw = random.Random(seed)
    before: Rig | None = None
    down: set[str] = set()
    for _ in range(4):
        async with running(tmp_path, peer, before) as it:
            for _ in range(8):
                await happens(draw, it, peer, down)
            before = it
    peer.status = 200
    async with running(tmp_path, peer, before) as it:
        await it.ends(*down)
        await it.passes(600)
        await tells_again(it)
        states = set((await it.states("am")).values())
    assert states <= {"delivered", "dead"}
    assert peer.never_fired() == []
    assert not [name for name, ends in peer.ends.items() if ends > peer.clock.now()]


async def happens(draw: random.Random, it: Rig, peer: Peer, down: set[str]) -> None:
    name = draw.choice("ab")
    match draw.randrange(6):
        case 0 | 1 if name not in down:
            down.add(name)
            await it.opens(name, severity=draw.choice([WARNING, CRITICAL]))
        case 0 | 1:
            await it.changes(name, draw.choice([WARNING, CRITICAL]))
        case 2 if name in down:
            down.discard(name)
            await it.ends(name, edge=draw.choice([Edge.RECOVERED, Edge.CLOSED]))
        case 3:
            peer.status = draw.choice([200, 200, 400, 503])
        case 4:
            await tells_again(it)
        case _:
            pass
    await it.passes(draw.choice([0, 1, 30, 400]))
