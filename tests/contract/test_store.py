"""What every store keeps to, and what SQLite's adds to it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from tests.deliveries import NOW, delivery, event, told
from watcher.core.delivery import Delivery, DeliveryState, Part
from watcher.core.events import Edge, Event, Flaps, Incident
from watcher.core.model import Baseline, Json, Severity, Subject
from watcher.core.phases import Clearing, Fall, Firing, History, Pending, Phase, Settling, Steady
from watcher.core.retry import Breaker, SinkState
from watcher.errors import StoreError
from watcher.ports import UNTOLD, Claim, Record, Saved, Settlement, Store
from watcher.stores.database import migrate, open_store
from watcher.stores.sql import SqlStore

CHAT = (Part.EDIT, Part.REPLY)
INCIDENT = Incident(
    "0192", NOW, NOW, "below_minimum", Severity.WARNING, "1 of 3", 2, told={"hook": ""}
)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of each kind that the one implementation serves."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'watcher.db'}"
    url: str = request.getfixturevalue("postgres").database()
    migrate(url)
    return url


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    opened = open_store(url)
    yield opened
    await opened.close()


async def claim_one(store: Store, sink: str = "hook", now: datetime = NOW) -> Claim:
    (claimed,) = await store.claim(sink, now, 4)
    return claimed


async def deliver(
    store: Store, sink: str, now: datetime = NOW, receipt: Json | None = None
) -> Claim:
    claimed = await claim_one(store, sink, now)
    await store.settle(
        Settlement(claimed.delivery.id, DeliveryState.DELIVERED, now, receipt=receipt)
    )
    return claimed


async def states(store: Store, sink: str = "hook") -> dict[tuple[int, Part], DeliveryState]:
    rows = await store.history(sink=sink)
    return {(row.delivery.sequence, row.delivery.part): row.delivery.state for row in rows}


async def test_an_idle_sink_gets_it_with_the_commit(store: Store) -> None:
    """Just what a claim would have found, and no claim finds it again until it is settled."""
    first, end = told(event(1)), told(event(1, 2, Edge.RECOVERED))
    claims = await store.record(first, NOW, ["hook", "other"])
    assert await store.claim("hook", NOW, 4) == []
    assert await store.record(end, later(1), ["hook"]) == {}, "it waits for the first"
    assert await store.reclaim("hook", later(2)) == 1
    (again,) = await store.claim("hook", later(2), 4)
    first_time = replace(again, delivery=first.deliveries[0], attempts=0, ambiguous=False)
    assert claims == {"hook": first_time}
    await store.settle(Settlement(again.delivery.id, DeliveryState.DELIVERED, NOW))
    assert await store.record(end, later(3), ["hook"]) == {}, "it is there already"
    assert (await deliver(store, "hook", later(3))).event.edge is Edge.RECOVERED
    assert await store.record(first, later(4), ["hook"]) == {}, "it is settled already"
    assert set((await states(store)).values()) == {DeliveryState.DELIVERED}


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(delivery(event(1), due=later(1)), id="due later"),
        pytest.param(delivery(event(1), part=Part.POST), id="may be coalesced"),
        pytest.param(delivery(event(1), state=DeliveryState.SUPPRESSED), id="not to be sent"),
        pytest.param(delivery(event(1), sink="other"), id="of a busy sink"),
    ],
)
async def test_an_idle_sink_gets_nothing_else_with_the_commit(store: Store, one: Delivery) -> None:
    """What needs a look at the queue takes the way over the queue."""
    record = Record(events=(event(1),), deliveries=(one,))
    assert await store.record(record, NOW, ["hook"]) == {}
    assert await store.record(told(event(2)), NOW, ["hook"]) != {}


FELL = History((NOW, later(30)), falls=(Fall(NOW, timedelta(seconds=25)),), falling=later(30))


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param(Steady(History((NOW,), (later(1.000001),))), id="steady"),
        pytest.param(
            Pending(
                NOW, later(60), timedelta(minutes=1), "none_available", Severity.CRITICAL, "0", True
            ),
            id="pending",
        ),
        pytest.param(
            Pending(
                NOW,
                later(60),
                timedelta(minutes=1),
                "none_available",
                Severity.CRITICAL,
                "0",
                history=FELL,
                flaps_at=later(5),
            ),
            id="pending, and about to flap",
        ),
        pytest.param(Firing(INCIDENT, later(900)), id="firing"),
        pytest.param(
            Firing(
                replace(INCIDENT, changed_at=NOW, wavers=True),
                settling=Settling(later(60), "below_minimum", Severity.WARNING),
            ),
            id="wavering",
        ),
        pytest.param(
            Firing(
                replace(INCIDENT, flapping=True, flaps=Flaps(6, NOW, timedelta(seconds=125))),
                later(900),
                FELL,
            ),
            id="flapping",
        ),
        pytest.param(Clearing(INCIDENT, later(60)), id="clearing"),
    ],
)
async def test_phases_come_back(store: Store, phase: Phase) -> None:
    """A restart finds each subject exactly as it was left, the latest of it only."""
    subject = Subject("prod", "shop", "checkout", "uid")
    await store.record(Record(saved=(Saved(subject, Steady()),)), NOW)
    saved = Saved(subject, phase, Baseline(True, 3, 2, 3, raised_at=NOW))
    await store.record(Record(saved=(saved, Saved(Subject("lab"), phase))), NOW)
    assert list(await store.load("prod")) == [saved]
    assert list(await store.load("lab")) == [Saved(Subject("lab"), phase)]
    await store.record(Record(forgotten=(subject,)), NOW)
    assert list(await store.load("prod")) == []
    assert len(await store.load("lab")) == 1


async def test_a_record_is_all_or_nothing(store: Store) -> None:
    """If one part of a decision cannot be kept, none of it is: the phase does not advance."""
    one = event(1)
    record = Record(
        saved=(Saved(one.subject, Steady()),),
        events=(one,),
        deliveries=(delivery(one), delivery(event(2))),
    )
    with pytest.raises(StoreError, match=r"(?i)foreign key"):
        await store.record(record, NOW)
    assert list(await store.load("prod")) == []
    assert list(await store.history()) == []


async def test_a_replayed_record_changes_nothing(store: Store) -> None:
    """A decision taken twice, as after a crash before its echo, is told once."""
    record = told(event(1), event(1, 2, Edge.RECOVERED))
    await store.record(record, NOW)
    await deliver(store, "hook")
    before = await store.history()
    await store.record(record, later(9))
    await store.record(told(event(1)), later(10))
    assert await store.history() == before
    assert (await claim_one(store)).latest == event(1, 2, Edge.RECOVERED)


async def test_many_at_once(store: Store) -> None:
    """Ten thousand Deployments at a start are one transaction, and come back."""
    saved = tuple(
        Saved(Subject("prod", "ns", f"app-{n}", f"uid-{n}"), Steady()) for n in range(10_000)
    )
    await store.record(Record(saved=saved), NOW)
    assert set(await store.load("prod")) == set(saved)


async def test_order(store: Store) -> None:
    """In order within an incident, the newest incident first, one of each at a time."""
    for number in (1, 3, 2):
        await store.record(told(event(number), event(number, 2, Edge.UPDATED)), NOW)
    first = await store.claim("hook", NOW, 2)
    assert [(one.event.subject.name, one.event.sequence) for one in first] == [
        ("app-3", 1),
        ("app-2", 1),
    ]
    second = await store.claim("hook", NOW, 2)
    assert [(one.event.subject.name, one.event.sequence) for one in second] == [("app-1", 1)]
    await store.settle(Settlement(first[0].delivery.id, DeliveryState.DELIVERED, NOW))
    assert (await claim_one(store)).event == event(3, 2, Edge.UPDATED)
    assert await store.claim("hook", NOW, 4) == []
    assert await store.claim("other", NOW, 4) == []


async def test_what_is_in_flight_is_left_alone(store: Store) -> None:
    """However long an attempt takes to be settled, nothing of its incident is sent meanwhile."""
    await store.record(told(event(1), event(1, 2, Edge.RECOVERED)), NOW)
    await claim_one(store)
    assert await store.claim("hook", later(10**6), 4) == []


async def test_retry(store: Store) -> None:
    """A deferred delivery comes back when it is due, with what is known of it, and holds its successors."""
    await store.record(told(event(1), event(1, 2, Edge.RECOVERED)), NOW)
    claimed = await claim_one(store)
    assert (claimed.attempts, claimed.last_error) == (0, "")
    assert await store.next_due("hook") is None, "its successor is not due before it"
    end = Settlement(claimed.delivery.id, DeliveryState.PENDING, NOW, later(8), "http_503", "busy")
    await store.settle(replace(end, counted=False))
    assert await store.next_due("hook") == NOW, "its successor is due by itself"
    assert await store.claim("hook", later(7), 4) == []
    assert await store.next_due("hook") == later(8), "and is not looked at again before it can go"
    again = await claim_one(store, now=later(8))
    assert (again.event.sequence, again.attempts, again.last_error) == (1, 0, "http_503")
    assert (again.recorded_at, again.ambiguous) == (NOW, False)
    await store.settle(replace(end, at=later(8), due=later(9), ambiguous=True))
    third = await claim_one(store, now=later(9))
    assert (third.attempts, third.ambiguous) == (1, True)
    await store.settle(Settlement(third.delivery.id, DeliveryState.DELIVERED, later(9)))
    (row,) = (r for r in await store.history() if r.delivery.id == third.delivery.id)
    assert (row.attempts, row.settled_at, row.error) == (2, later(9), "busy")
    assert (await claim_one(store, now=later(9))).event.sequence == 2


async def test_what_is_final_stays(store: Store) -> None:
    """A late answer of an attempt that was given up changes nothing."""
    await store.record(told(event(1)), NOW)
    claimed = await deliver(store, "hook")
    await store.settle(Settlement(claimed.delivery.id, DeliveryState.DEAD, later(1), reason="late"))
    (row,) = await store.history()
    assert (row.delivery.state, row.settled_at, row.attempts) == (DeliveryState.DELIVERED, NOW, 1)


async def test_reclaim(store: Store) -> None:
    """What a dead process had in flight is due at once and marked: it may have arrived."""
    await store.record(told(event(1), sink="hook"), NOW)
    await store.record(told(event(2), sink="chat", parts=(Part.POST,)), NOW)
    claimed = await claim_one(store)
    await claim_one(store, "chat")
    assert await store.next_due("hook") is None
    assert await store.reclaim("hook", later(1)) == 1
    again = await claim_one(store, now=later(1))
    assert (again.delivery.id, again.ambiguous, again.attempts) == (claimed.delivery.id, True, 1)
    assert await store.claim("chat", later(1), 4) == [], "another sink's is its own"
    assert await store.reclaim("hook", later(2), [again.delivery.incident]) == 0, "it is being sent"


async def test_a_clock_that_ran_ahead(store: Store) -> None:
    """What was put off under a wrong clock waits an hour at most once the clock is right."""
    await store.record(told(event(1)), NOW)
    claimed = await claim_one(store)
    ahead = later(10**6)
    await store.settle(Settlement(claimed.delivery.id, DeliveryState.PENDING, NOW, due=ahead))
    await store.reclaim("hook", NOW)
    assert await store.next_due("hook") == later(3600)


async def test_a_parked_delivery_is_probed(store: Store) -> None:
    """A parked row keeps its place and can be claimed when it is due again."""
    await store.record(told(event(1)), NOW)
    claimed = await claim_one(store)
    await store.settle(
        Settlement(claimed.delivery.id, DeliveryState.PARKED, NOW, later(300), "invalid_auth")
    )
    assert await store.queue() == [("hook", DeliveryState.PARKED, 1, NOW)]
    assert await store.claim("hook", later(299), 4) == []
    assert (await claim_one(store, now=later(300))).delivery.id == claimed.delivery.id


async def test_a_restart_probes_what_is_parked(store: Store) -> None:
    """How long it was to be spared was decided by a process that is no more."""
    await store.record(told(event(1)), NOW)
    claimed = await claim_one(store)
    await store.settle(
        Settlement(claimed.delivery.id, DeliveryState.PARKED, NOW, later(300), "invalid_auth")
    )
    await store.reclaim("hook", later(10))
    assert (await claim_one(store, now=later(10))).last_error == "invalid_auth"


async def test_the_queue_of_a_removed_sink(store: Store) -> None:
    """Row 69: it is parked and counted, neither lost nor sent, and comes when the sink is back."""
    await store.record(told(*(event(n) for n in range(10)), sink="old"), NOW)
    await store.record(told(event(11)), NOW)
    assert await store.strand(["hook"]) == {"old": 10}
    assert await store.strand(["hook"]) == {}
    assert [row[:3] for row in await store.queue()] == [
        ("hook", DeliveryState.PENDING, 1),
        ("old", DeliveryState.PARKED, 10),
    ]
    await store.reclaim("old", NOW)
    back = await store.claim("old", NOW, 10)
    assert {claim.last_error for claim in back} == {"sink_removed"}
    assert len(back) == 10


async def test_what_stands_is_what_was_told_and_has_not_ended(store: Store) -> None:
    """What a sink has taken of each incident; of one that has ended for a while, to be told again."""
    ended = event(2, 2, Edge.RECOVERED)
    for one in (event(1), event(2), ended):
        await store.record(told(one), NOW)
        await deliver(store, "hook")
    await store.record(told(event(3)), NOW)
    await store.record(told(event(4), sink="other"), NOW)
    just = ended.at - timedelta(seconds=1)
    assert await store.standing("hook", just) == [[event(1)], [event(2), ended]]
    assert await store.standing("hook", ended.at) == [[event(1)]]
    assert await store.told("hook", event(2).incident) == [event(2), ended]
    assert await store.told("hook", event(3).incident) == []


async def test_an_end_that_is_yet_to_be_sent_lets_nothing_stand(store: Store) -> None:
    """To tell again that it stands would tell of an outage that is over."""
    ended = event(1, 2, Edge.RECOVERED)
    await store.record(told(event(1)), NOW)
    await deliver(store, "hook")
    await store.record(told(ended), NOW)
    assert await store.standing("hook", ended.at - timedelta(seconds=1)) == []
    assert await store.told("hook", ended.incident) == [event(1)]


async def test_what_nobody_was_told_is_left_out(store: Store) -> None:
    """The sink took it after newer news, and its receipt says that it said nothing; no thread either."""
    first, late = event(1), event(1, 2, Edge.UPDATED)
    await store.record(told(first, late), NOW)
    await deliver(store, "hook")
    await deliver(store, "hook", receipt=UNTOLD)
    assert await store.told("hook", first.incident) == [first]
    assert await store.standing("hook", NOW) == [[first]]
    await store.record(told(event(1, 3, Edge.UPDATED), parts=(Part.EDIT,)), NOW)
    assert (await claim_one(store)).thread is None, "whatever the sink has become since"


async def test_a_post_that_waits_is_taken_into_a_digest(store: Store) -> None:
    """Only while nobody has tried to send it; one that was sent stays as it is."""
    await store.record(told(event(2), sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat")
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    grouped = [
        delivery(event(n), "chat", Part.POST, state=DeliveryState.GROUPED, digest="d")
        for n in (1, 2)
    ]
    await store.record(Record(deliveries=tuple(grouped)), NOW)
    rows = {row.event.incident: row for row in await store.history(sink="chat")}
    assert rows[event(1).incident].delivery.state is DeliveryState.GROUPED
    assert rows[event(1).incident].delivery.digest == "d"
    assert rows[event(2).incident].delivery.state is DeliveryState.DELIVERED
    assert await store.claim("chat", NOW, 4) == []


async def test_a_thread(store: Store) -> None:
    """Edits and replies get the receipt of the incident's post; an edit knows the newest event."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat", receipt={"ts": "1.2", "channel": "C1"})
    news = [event(1, 2, Edge.UPDATED), event(1, 3, Edge.RECOVERED)]
    await store.record(told(*news, sink="chat", parts=CHAT), NOW)
    reply = await deliver(store, "chat")
    assert (reply.delivery.part, reply.event, reply.latest) == (Part.REPLY, news[0], news[1])
    assert reply.thread == {"ts": "1.2", "channel": "C1"}
    await deliver(store, "chat")
    edit = await deliver(store, "chat", receipt={"ts": "9.9", "channel": "C1"})
    assert (edit.delivery.part, edit.event) == (Part.EDIT, news[1])
    assert edit.covers == tuple(news)
    assert [one.sequence for one in edit.superseded] == [2]
    assert (await states(store, "chat"))[2, Part.EDIT] is DeliveryState.SUPERSEDED
    await store.record(told(event(1, 4, Edge.UPDATED), sink="chat", parts=CHAT), NOW)
    assert (await claim_one(store, "chat")).thread == {"ts": "9.9", "channel": "C1"}, "posted anew"


async def test_an_untold_outage_is_one_line(store: Store) -> None:
    """An opening still unsent when its end commits is told with it, late since the opening."""
    opening, end = event(1), event(1, 2, Edge.RECOVERED)
    await store.record(told(opening, sink="chat", parts=(Part.POST,)), NOW)
    failed = await claim_one(store, "chat")
    await store.settle(Settlement(failed.delivery.id, DeliveryState.PENDING, NOW, due=later(300)))
    await store.record(told(end, sink="chat", parts=CHAT), later(200))
    assert await store.claim("chat", later(200), 4) == [], "its backoff holds"
    assert await store.next_due("chat") == later(300)
    line = await deliver(store, "chat", now=later(300))
    assert line.delivery == replace(delivery(end, "chat", Part.POST), due=later(300))
    assert (line.covers, line.event, line.attempts) == ((opening, end), end, 0)
    assert (line.recorded_at, line.waiting_since) == (later(200), NOW)
    assert await states(store, "chat") == {
        (1, Part.POST): DeliveryState.SUPERSEDED,
        (2, Part.POST): DeliveryState.DELIVERED,
        (2, Part.EDIT): DeliveryState.SUPERSEDED,
        (2, Part.REPLY): DeliveryState.SUPERSEDED,
    }
    assert await store.next_due("chat") is None


async def test_a_replacement_remembers_what_it_covers(store: Store) -> None:
    """Replaced again after a failure, the line still tells all that was not told."""
    history = [event(1), event(1, 2, Edge.UPDATED), event(1, 3, Edge.RECOVERED)]
    await store.record(told(history[0], sink="chat", parts=(Part.POST,)), NOW)
    for seconds, news in enumerate(history[1:], 1):
        await store.record(told(news, sink="chat", parts=CHAT), later(seconds))
        claimed = await claim_one(store, "chat", later(seconds))
        await store.settle(
            Settlement(claimed.delivery.id, DeliveryState.PENDING, NOW, due=later(seconds))
        )
    again = await claim_one(store, "chat", later(3))
    assert again.covers == tuple(history)
    assert (again.waiting_since, again.superseded) == (NOW, ())


async def test_what_newer_edits_replace_is_compacted(store: Store) -> None:
    """The newest of them stands for all, due when the first was; replies and machines keep theirs."""
    history = [event(1), *(event(1, number, Edge.UPDATED) for number in (2, 3, 4))]
    await store.record(told(*history), NOW)
    await store.record(told(history[0], sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat", receipt={"ts": "1.2"})
    for seconds, news in enumerate(history[1:]):
        edit = delivery(news, "chat", Part.EDIT, due=later(10 * seconds))
        reply = delivery(news, "chat", Part.REPLY)
        await store.record(Record(events=(news,), deliveries=(edit, reply)), NOW)
    (compacted,), more = await store.compact("chat", later(5), Part.EDIT)
    assert compacted.send == delivery(history[3], "chat", Part.EDIT, due=later(20))
    assert await store.compact("chat", later(5), Part.EDIT, more) == ([], "")
    assert await store.compact("hook", later(5), Part.EDIT) == ([], "")
    assert await store.compact("hook", later(5), Part.POST) == ([], "")
    after = await states(store, "chat")
    assert [after[number, Part.EDIT] for number in (2, 3, 4)] == [
        DeliveryState.SUPERSEDED, DeliveryState.SUPERSEDED, DeliveryState.PENDING,
    ]  # fmt: skip
    assert {after[number, Part.REPLY] for number in (2, 3, 4)} == {DeliveryState.PENDING}
    assert set((await states(store, "hook")).values()) == {DeliveryState.PENDING}
    for number in (2, 3, 4):
        assert (await deliver(store, "chat", later(5))).delivery.sequence == number
    newest = await claim_one(store, "chat", later(5))
    assert (newest.delivery.part, newest.covers) == (Part.EDIT, tuple(history[1:]))
    assert newest.superseded == ()


async def test_an_untold_outage_is_compacted_to_its_line(store: Store) -> None:
    """It is what would be sent, at the same time; what is in flight or waits is left alone."""
    backoff = [event(3), event(3, 2, Edge.RECOVERED)]
    await store.record(told(backoff[0], sink="chat", parts=(Part.POST,)), NOW)
    tried = await claim_one(store, "chat")
    await store.settle(Settlement(tried.delivery.id, DeliveryState.PENDING, NOW, due=later(300)))
    await store.record(told(event(2), sink="chat", parts=(Part.POST,)), NOW)
    flying = await claim_one(store, "chat")
    await store.record(told(event(2, 2, Edge.RECOVERED), backoff[1], sink="chat", parts=CHAT), NOW)
    whole = [event(1), event(1, 2, Edge.RECOVERED)]
    await store.record(told(whole[0], sink="chat", parts=(Part.POST,)), NOW)
    await store.record(told(whole[1], sink="chat", parts=CHAT), later(1))
    (compacted,), _ = await store.compact("chat", later(2), Part.POST)
    assert [one.incident for one in compacted.supersede] == 3 * [whole[0].incident]
    line = await claim_one(store, "chat", later(2))
    assert line.delivery == delivery(whole[1], "chat", Part.POST)
    assert (line.covers, line.attempts, line.waiting_since) == (tuple(whole), 0, NOW)
    assert (line.recorded_at, line.superseded) == (later(1), ())
    open_rows = {(sink, state): count for sink, state, count, _ in await store.queue()}
    assert open_rows == {("chat", DeliveryState.INFLIGHT): 2, ("chat", DeliveryState.PENDING): 5}
    assert flying.delivery.incident == event(2).incident


async def test_edits_that_wait_are_not_compacted(store: Store) -> None:
    """A backoff is not shortened by news: a newer edit waits with the one that was tried."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat", receipt={"ts": "1.2"})
    await store.record(told(event(1, 2, Edge.UPDATED), sink="chat", parts=(Part.EDIT,)), NOW)
    tried = await claim_one(store, "chat")
    await store.settle(Settlement(tried.delivery.id, DeliveryState.PENDING, NOW, due=later(300)))
    await store.record(told(event(1, 3, Edge.UPDATED), sink="chat", parts=(Part.EDIT,)), NOW)
    assert (await store.compact("chat", later(299), Part.EDIT))[0] == []
    assert await store.claim("chat", later(299), 4) == []
    assert len((await store.compact("chat", later(300), Part.EDIT))[0]) == 1
    assert (await claim_one(store, "chat", later(300))).delivery.sequence == 3


async def test_compaction_goes_in_steps(store: Store) -> None:
    """So many incidents at a time that a commit between two steps does not wait for long."""
    for number in range(150):
        outage = (event(number), event(number, 2, Edge.RECOVERED))
        await store.record(told(*outage, sink="chat", parts=(Part.POST,)), NOW)
    sizes, after = [], ""
    while True:
        choices, after = await store.compact("chat", NOW, Part.POST, after)
        sizes.append(len(choices))
        if not after:
            break
    assert sizes == [100, 50, 0]
    assert [count for _, _, count, _ in await store.queue()] == [150]


async def test_edits_held_back(store: Store) -> None:
    """While edits are throttled replies go on, and the queue says when to look again."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat", receipt={"ts": "1.2"})
    await store.record(told(event(1, 2, Edge.UPDATED), sink="chat", parts=CHAT), NOW)
    (reply,) = await store.claim("chat", NOW, 4, edits_from=later(30))
    assert reply.delivery.part is Part.REPLY
    await store.settle(Settlement(reply.delivery.id, DeliveryState.DELIVERED, NOW))
    assert await store.claim("chat", NOW, 4, edits_from=later(30)) == []
    assert await store.next_due("chat") == later(30)
    (edit,) = await store.claim("chat", later(30), 4, edits_from=later(30))
    assert edit.delivery.part is Part.EDIT


async def test_what_must_wait_hides_nothing(store: Store) -> None:
    """A hundred incidents that wait for their head do not keep one that can go from going."""
    for number in range(2, 122):
        await store.record(told(event(number), event(number, 2, Edge.RECOVERED)), NOW)
    while claims := await store.claim("hook", NOW, 50):
        for claimed in claims:
            end = Settlement(claimed.delivery.id, DeliveryState.PENDING, NOW, due=later(300))
            await store.settle(end)
    await store.record(told(event(1)), NOW)
    assert (await claim_one(store)).event == event(1)
    assert await store.claim("hook", NOW, 1) == []
    assert await store.next_due("hook") == later(300)


async def test_a_digest(store: Store) -> None:
    """A digest knows the newest event of each member; the members themselves are not told."""
    digest = event(9, digest=True)

    def grouped(one: Event) -> Delivery:
        state = DeliveryState.GROUPED
        return delivery(one, "chat", Part.POST, state=state, digest=digest.incident)

    members = [event(1), event(2)]
    record = Record(
        saved=(Saved(digest.subject, Firing(INCIDENT)),),
        events=(*members, digest),
        deliveries=(
            *map(grouped, members),
            delivery(digest, "chat", Part.POST),
        ),
    )
    await store.record(record, NOW)
    ended = event(2, 2, Edge.RECOVERED)
    await store.record(Record(events=(ended,), deliveries=(grouped(ended),)), NOW)
    claimed = await claim_one(store, "chat")
    assert (claimed.event, claimed.members) == (digest, (members[0], ended))
    assert [saved.subject for saved in await store.load("prod")] == [digest.subject]
    rows = await store.history(sink="chat", name="app-1")
    assert [(row.delivery.digest, row.delivery.state) for row in rows] == [
        (digest.incident, DeliveryState.GROUPED)
    ]


async def test_history(store: Store) -> None:
    """Who was told what, when, or why not, newest first, and by any of the questions asked."""
    for number in (1, 2, 3):
        one = event(number)
        silenced = delivery(one, "chat", state=DeliveryState.SUPPRESSED, reason="silenced")
        record = Record(events=(one,), deliveries=(delivery(one), silenced))
        await store.record(record, later(number))
    every = await store.history()
    assert [row.event.subject.name for row in every[::2]] == ["app-3", "app-2", "app-1"]
    assert every == [*await store.history(limit=1), *every[1:]]
    assert await store.history(incident=event(2).incident[-8:]) == every[2:4]
    (row,) = await store.history(since=later(2), sink="chat", name="app-2", namespace="shop")
    assert (row.delivery.state, row.delivery.reason) == (DeliveryState.SUPPRESSED, "silenced")
    assert (row.recorded_at, row.settled_at) == (later(2), later(2))
    assert len(await store.history(incident=event(3).incident)) == 2
    assert await store.history(namespace="other") == []
    assert await store.queue() == [("hook", DeliveryState.PENDING, 3, later(1))]


async def test_sight_and_sinks_are_remembered(store: Store) -> None:
    """When a cluster was last seen, and what a sink's failures have earned it, outlive the process."""
    assert await store.seen_at("prod") is None
    await store.mark_seen("prod", NOW)
    await store.mark_seen("prod", later(0.000001))
    assert await store.seen_at("prod") == later(0.000001)
    assert await store.sink_state("hook") == SinkState()
    await store.record(told(event(1)), NOW)
    claimed = await claim_one(store)
    state = SinkState(Breaker(5, timedelta(seconds=5), later(5)), trouble="invalid_auth")
    await store.settle(
        Settlement(claimed.delivery.id, DeliveryState.PENDING, NOW, due=later(5), sink=state)
    )
    assert await store.sink_state("hook") == state


async def test_a_second_process_sees_what_the_first_committed(url: str, store: Store) -> None:
    """History and status read beside the running process, and after it."""
    await store.record(told(event(1)), NOW)
    beside = open_store(url)
    assert await beside.history() == await store.history()
    await beside.close()


async def test_naive_times_are_refused(store: Store) -> None:
    """A time without a zone is a mistake of ours, not a time."""
    with pytest.raises(StoreError, match="without a zone"):
        await store.mark_seen("prod", datetime(2026, 11, 22))  # noqa: DTZ001


async def test_ping_is_a_write(url: str, store: Store) -> None:
    """A store that can be read and not written is not well; and it is again once it can."""
    await store.ping()
    rival: sqlite3.Connection | psycopg.Connection
    if url.startswith("sqlite:"):
        rival = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        locks = ["BEGIN IMMEDIATE"]
    else:
        rival = psycopg.connect(url, autocommit=True)
        locks = ["BEGIN", "LOCK TABLE alembic_version"]
    with closing(rival):
        for lock in locks:
            rival.execute(lock)
        holding = asyncio.ensure_future(store.ping())
        assert not (await asyncio.wait([holding], timeout=0.1))[0], "it waits for the other's write"
        rival.execute("ROLLBACK")
        await holding


ENDED = (DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.EXPIRED)


async def settled(store: Store, now: datetime, *ends: DeliveryState) -> list[str]:
    """Claim all that is due at that time and end it so, the newest incident first; gives the ids."""
    claims = await store.claim("hook", now, len(ends))
    for claimed, end in zip(claims, ends, strict=True):
        reason = "" if end is DeliveryState.DELIVERED else "http_400"
        settlement = Settlement(claimed.delivery.id, end, now, later(10**6), reason, "no")
        await store.settle(settlement)
    return [claimed.delivery.id for claimed in claims]


async def test_redrive(store: Store) -> None:
    """What was given up or parked is due again under its id; what is over or waits stays as it is."""
    for number in range(1, 6):
        await store.record(told(event(number)), NOW)
    ends = (*ENDED, DeliveryState.PARKED, DeliveryState.PENDING)
    ids = await settled(store, NOW, *ends)
    assert await store.redriven() == []
    done = await store.redrive(ids, later(60), "me@here", after_end=False)
    assert set(done) == set(ids[1:4]), "neither the delivered one nor the one that waits anyhow"
    assert await store.redriven() == [("hook", later(60), "me@here", 3)]
    claims = await store.claim("hook", NOW, 9)
    assert {one.delivery.id for one in claims} == set(done), "whatever the clock of the other says"
    assert {(one.redriven_at, one.attempts, one.last_error) for one in claims} == {
        (later(60), 1, "http_400")
    }
    (row,) = await store.history(delivery=ids[1])
    assert (row.redriven_at, row.redriven_by, row.settled_at) == (later(60), "me@here", None)
    assert await store.redrive(done, later(61), "me", after_end=True) == [], "it is being sent"


async def test_redrive_opens_nothing_again(store: Store) -> None:
    """A sink that has the end is sent no opening after it, unless that very delivery is asked for."""
    await store.record(told(event(1)), NOW)
    (opening,) = await settled(store, NOW, DeliveryState.DEAD)
    await store.record(told(event(1, 2, Edge.RECOVERED)), NOW)
    (end,) = await settled(store, NOW, DeliveryState.DEAD)
    assert len(await store.redrive([opening], NOW, "me", after_end=False)) == 1, "no end yet"
    await settled(store, NOW, DeliveryState.DEAD)
    await store.redrive([end], NOW, "me", after_end=False)
    await settled(store, NOW, DeliveryState.DELIVERED)
    assert await store.redrive([opening], NOW, "me", after_end=False) == []
    assert await store.redrive([opening], NOW, "me", after_end=True) == [opening]


async def test_incidents(store: Store) -> None:
    """The newest first, each as it stands now; open ones, of one namespace, or by id."""
    for number in (1, 2, 3):
        await store.record(told(event(number)), NOW)
    await store.record(told(event(2, 2, Edge.RECOVERED)), NOW)
    digest = event(9, digest=True)
    await store.record(told(digest), NOW)
    newest = [event(3), event(2, 2, Edge.RECOVERED), event(1)]
    assert await store.incidents() == newest
    assert await store.incidents(limit=1) == newest[:1]
    assert await store.incidents(still_open=True, namespace="shop") == [event(3), event(1)]
    assert await store.incidents(namespace="other") == []
    assert await store.incidents(incident=digest.incident) == [digest]
    assert await store.events(event(2).incident) == [event(2), newest[1]]
    assert await store.events("unheard of") == []


@pytest.mark.parametrize(
    ("end", "goes"),
    [
        pytest.param(DeliveryState.DELIVERED, True, id="delivered"),
        pytest.param(DeliveryState.DEAD, True, id="given up"),
        pytest.param(DeliveryState.PENDING, False, id="to be sent"),
        pytest.param(DeliveryState.PARKED, False, id="waiting for a human"),
        pytest.param(None, False, id="being sent"),
    ],
)
async def test_retention_keeps_what_is_still_to_send(
    store: Store, end: DeliveryState | None, goes: bool
) -> None:
    """However long ago its incident ended; what is told is forgotten whole."""
    await store.record(told(event(1)), NOW)
    await settled(store, NOW, DeliveryState.DELIVERED)
    await store.record(told(event(1, 2, Edge.RECOVERED)), NOW)
    if end is None:
        await claim_one(store)
    else:
        await settled(store, NOW, end)
    assert await store.prune(later(0)) == 0, "it has not ended before that"
    assert await store.prune(later(10**8)) == int(goes)
    assert len(await store.history()) == (0 if goes else 2)
    assert len(await store.events(event(1).incident)) == (0 if goes else 2)


async def test_retention_keeps_open_incidents_and_goes_in_steps(store: Store) -> None:
    """An incident of years ago stays while it is open; nobody waits for more than 500 to go."""
    silenced = DeliveryState.SUPPRESSED

    def untold(one: Event) -> Record:
        return Record(events=(one,), deliveries=(delivery(one, state=silenced, reason="silenced"),))

    for number in range(601):
        await store.record(untold(event(number)), NOW)
    ends = [untold(event(number, 2, Edge.CLOSED)) for number in range(600)]
    together = Record(
        events=tuple(e for r in ends for e in r.events),
        deliveries=tuple(d for r in ends for d in r.deliveries),
    )
    await store.record(together, NOW)
    assert [await store.prune(later(10**8)) for _ in range(3)] == [500, 100, 0]
    assert await store.incidents(limit=1000) == [event(600)]
    assert len(await store.history(limit=1000)) == 1


async def test_retention_keeps_the_members_of_an_open_digest(store: Store) -> None:
    """Each edit of a digest names all of them, also those that ended long before the last one."""
    digest, state = event(9, digest=True), DeliveryState.GROUPED

    def grouped(*ones: Event) -> Record:
        rows = (delivery(one, state=state, digest=digest.incident) for one in ones)
        return Record(events=ones, deliveries=tuple(rows))

    await store.record(grouped(event(1), event(2)), NOW)
    await store.record(told(digest), NOW)
    await settled(store, NOW, DeliveryState.DELIVERED)
    await store.record(grouped(event(1, 2, Edge.RECOVERED)), NOW)
    assert await store.prune(later(10**8)) == 0
    await store.record(told(event(9, 2, Edge.UPDATED, digest=True)), NOW)
    claimed = await claim_one(store)
    assert claimed.members == (event(1, 2, Edge.RECOVERED), event(2))
    await store.settle(Settlement(claimed.delivery.id, DeliveryState.DELIVERED, NOW))
    await store.record(grouped(event(2, 2, Edge.RECOVERED)), NOW)
    await store.record(told(event(9, 3, Edge.RECOVERED, digest=True)), NOW)
    assert await store.prune(later(10**8)) == 0, "its end is still to be sent"
    await settled(store, NOW, DeliveryState.DELIVERED)
    assert [await store.prune(later(10**8)) for _ in range(3)] == [1, 2, 0], "after their digest"
    assert await store.history() == []


def damage(url: str, statement: str) -> None:
    """Write what our code never would."""
    rival = (
        sqlite3.connect(url.removeprefix("sqlite:///"))
        if url.startswith("sqlite:")
        else psycopg.connect(url)
    )
    with closing(rival), rival:
        rival.execute(statement)


def notes(store: SqlStore) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    store.unreadable = lambda table, key: told.append((table, key))
    return told


async def test_a_damaged_phase_is_set_aside(url: str, store: SqlStore) -> None:
    """One subject is judged as if new, loudly, and all others are as they were; its row is kept."""
    damaged, phase = notes(store), Firing(INCIDENT)
    again = Saved(Subject("prod", "shop", "one", "one"), phase)
    for name in ("one", "two"):
        saved = Saved(Subject("prod", "shop", name, name), phase)
        await store.record(Record(saved=(saved,)), NOW)
    for _ in (1, 2):
        damage(url, "UPDATE phases SET body = '{\"type\": \"unheard of\"}' WHERE uid = 'one'")
        assert [saved.subject.name for saved in await store.load("prod")] == ["two"]
        assert [saved.subject.name for saved in await store.load("prod")] == ["two"]
        assert damaged == [("phases", "one")]
        damaged.clear()
        await store.record(Record(saved=(again,)), NOW)
        assert len(await store.load("prod")) == 2
    await store.record(Record(forgotten=(again.subject, Subject("prod", uid="two"))), NOW)
    assert await store.clusters() == []


DAMAGES = [
    pytest.param("UPDATE events SET body = 'x' WHERE id = '{event}'", id="event"),
    pytest.param("UPDATE deliveries SET part = 'x' WHERE event = '{event}'", id="delivery"),
    pytest.param("UPDATE deliveries SET state = 'x' WHERE event = '{event}'", id="state"),
]


@pytest.mark.parametrize("statement", DAMAGES)
async def test_a_damaged_delivery_is_given_up(url: str, store: SqlStore, statement: str) -> None:
    """It is dead and said to be; its own incident's next ones and all others are sent."""
    damaged = notes(store)
    bad = event(2)
    await store.record(told(bad, event(2, 2, Edge.RECOVERED)), NOW)
    await store.record(told(event(1)), NOW)
    damage(url, statement.format(event=bad.id))
    claims = await store.claim("hook", NOW, 9)
    assert [claimed.event for claimed in claims] == [event(2, 2, Edge.RECOVERED), event(1)]
    assert damaged == [("deliveries", delivery(bad).id)]
    assert {row.delivery.reason for row in await store.history()} >= {"", "unreadable"} or (
        "part" in statement
    )
    assert await store.next_due("hook") is None
    assert len(await store.queue()) == 1


async def test_what_is_damaged_beside_a_delivery_only_misses_from_it(
    url: str, store: SqlStore
) -> None:
    """The newest event, a receipt, a sink's state: the message goes out with what is left."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    await deliver(store, "chat", receipt={"ts": "1.2"})
    await store.record(told(event(1, 2, Edge.UPDATED), sink="chat", parts=(Part.REPLY,)), NOW)
    await store.record(Record(events=(event(1, 3, Edge.UPDATED),)), NOW)
    damage(url, "UPDATE deliveries SET receipt = '{' WHERE receipt IS NOT NULL")
    damage(url, f"UPDATE events SET body = '' WHERE id = '{event(1, 3).id}'")
    damage(url, "INSERT INTO sinks VALUES ('chat', '[]')")
    claimed = await claim_one(store, "chat")
    assert (claimed.thread, claimed.latest) == (None, claimed.event)
    assert await store.sink_state("chat") == SinkState()
