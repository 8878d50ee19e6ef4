"""Each sink gets what is due, in order, however it and the process behave; over a real store."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.deliveries import NOW, event, told
from watcher.clock import SystemClock
from watcher.core.delivery import Delivery, DeliveryState, Outcome, Part
from watcher.core.events import Edge, Event
from watcher.core.model import Json
from watcher.core.retry import Verdict
from watcher.dispatcher import Dispatcher
from watcher.errors import SinkError, StoreError
from watcher.ports import Claim, Clock, Notification, Record, Store, Traits
from watcher.reporting import Reporting
from watcher.stores.database import open_store
from watcher.testing.clock import ManualClock

CHAT = (Part.EDIT, Part.REPLY)
REFUSED = SinkError("connect", Outcome.RETRY)
PARKED = SinkError("invalid_auth", Outcome.PARK)
BAD = SinkError("invalid_blocks", Outcome.BAD_PAYLOAD)

Answer = Json | None | Exception
Script = Callable[[Notification], Answer]


def throttled(seconds: float) -> SinkError:
    return SinkError("rate_limited", Outcome.THROTTLED, retry_after=timedelta(seconds=seconds))


class ScriptedSink:
    """Answers as told, in turn and then with a receipt, and remembers what it was sent when."""

    def __init__(
        self,
        clock: Clock,
        *script: Answer,
        name: str = "hook",
        rate: float = 0,
        concurrency: int = 4,
    ) -> None:
        self.traits = Traits(name, concurrency=concurrency, rate=rate, max_age=timedelta(hours=1))
        self.script = list(script)
        self.answer: Script = lambda one: None if one.part in CHAT else {"ts": str(len(self.sent))}
        self.sent: list[Notification] = []
        self.times: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self._clock = clock

    async def send(self, notification: Notification) -> Json | None:
        self.sent.append(notification)
        self.times.append((self._clock.now() - NOW).total_seconds())
        answer = self.script.pop(0) if self.script else self.answer(notification)
        await self.open.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def told(self) -> list[str]:
        """What arrived, shortly: `app-1/2 edit`."""
        return [f"{one.event.subject.name}/{one.event.sequence} {one.part}" for one in self.sent]


class Reports:
    """Each report as a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def recorded(self, record: Record) -> None:
        self.lines += [f"{one.type} {one.edge} {one.subject.name}" for one in record.events]

    def answers(self, sink: str) -> None:
        """Not a line: it says so after every attempt."""

    def sent(self, claim: Claim, at: datetime, took: timedelta) -> None:
        self._line("sent", claim)

    def superseded(self, by: Delivery, delivery: Delivery) -> None:
        self.lines.append(f"superseded {delivery.part}{delivery.sequence} by {by.part}")

    def failed(self, claim: Claim, error: SinkError, end: Verdict, *, again: bool = False) -> None:
        words = {DeliveryState.PENDING: "deferred", DeliveryState.DEAD: "abandoned"}
        reason = "" if end.state is DeliveryState.EXPIRED else f" {error.reason}"
        self._line(f"{words.get(end.state, end.state)}{reason}", claim)

    def expired(self, claim: Claim, why: str) -> None:
        self._line("expired", claim)

    def store_refused(self, error: StoreError) -> None:
        self.lines.append(f"store refused: {error}")

    def _line(self, what: str, claim: Claim) -> None:
        self.lines.append(f"{what} {claim.event.subject.name}/{claim.event.sequence}")


class WatchedStore:
    """A real store, that counts what is asked of it, and can be made to fail."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls = 0
        self.failing = False
        self.lost = ""
        """What the store will do once without being able to say so."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: object, **more: object) -> object:
            self.calls += 1
            if self.failing:
                raise StoreError("database or disk is full")
            answer = await getattr(self.store, name)(*args, **more)
            if name == self.lost:
                self.lost = ""
                raise StoreError("connection lost during COMMIT")
            return answer

        return call


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[WatchedStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'watcher.db'}")
    yield WatchedStore(opened)
    await opened.close()


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def dispatch(store: WatchedStore, reports: Reports) -> Callable[..., Dispatcher]:
    def build(
        sink: ScriptedSink, clock: Clock, grace: float = 10, timeout: float = 30
    ) -> Dispatcher:
        return Dispatcher(
            sink,
            cast(Store, store),
            clock,
            cast(Reporting, reports),
            grace=timedelta(seconds=grace),
            timeout=timedelta(seconds=timeout),
            jitter=lambda: 1.0,
        )

    return build


async def pass_time(dispatcher: Dispatcher, clock: ManualClock, seconds: float = 0) -> None:
    """Step whenever the dispatcher asks to, letting each attempt end, for that long."""
    until = clock.now() + timedelta(seconds=seconds)
    while True:
        due = await dispatcher.step(clock.now())
        if dispatcher.in_flight:
            await dispatcher.finish()
        elif due is None or due > until:
            clock.set(until)
            return
        else:
            clock.set(max(due, clock.now()))


async def outcomes(store: WatchedStore) -> dict[str, DeliveryState]:
    rows = await store.history()
    return {
        f"{row.event.subject.name}/{row.event.sequence} {row.delivery.part}": row.delivery.state
        for row in rows
    }


def outage(
    number: int, *, told_as: Sequence[Edge] = (Edge.DEGRADED, Edge.RECOVERED)
) -> list[Event]:
    return [event(number, sequence, edge) for sequence, edge in enumerate(told_as, 1)]


Build = Callable[..., Dispatcher]


async def test_order_within_an_incident(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """A failing delivery holds back what follows it in its incident, and nothing else."""
    await store.record(told(*outage(1)), NOW)
    await store.record(told(*outage(2)), NOW)
    sink = ScriptedSink(clock)
    sink.answer = lambda one: (
        REFUSED
        if one.event.subject.name == "app-2" and clock.now() < NOW + timedelta(seconds=3)
        else None
    )
    await pass_time(dispatch(sink, clock), clock, 60)
    assert [one for one in sink.told if "app-1" in one] == ["app-1/1 event", "app-1/2 event"]
    assert [one for one in sink.told if "app-2" in one] == ["app-2/1 event"] * 3 + ["app-2/2 event"]
    assert len({one.delivery_id for one in sink.sent if one.event == event(2)}) == 1
    assert sink.times == [0, 0, 0, 1, 3, 3]
    assert reports.lines.count("deferred connect app-2/1") == 2


async def test_a_throttle_pauses_the_sink(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """Row 2: after a 429 nothing is sent for as long as was asked, and no attempt is spent."""
    await store.record(told(event(1)), NOW)
    sink = ScriptedSink(clock, throttled(30))
    dispatcher = dispatch(sink, clock)
    await pass_time(dispatcher, clock)
    await store.record(told(event(2)), NOW)
    await pass_time(dispatcher, clock, 29.9)
    assert sink.times == [0]
    assert dispatcher.state.paused_until == NOW + timedelta(seconds=30)
    await pass_time(dispatcher, clock, 1)
    assert sink.times == [0, 30, 30]
    assert [row.attempts for row in await store.history()] == [1, 1]


async def test_throttled_edits_do_not_delay_the_end(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """Row 4: edits have a limit of their own: replies and openings go on meanwhile, edits coalesce."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    sink = ScriptedSink(clock, name="chat")
    dispatcher = dispatch(sink, clock)
    await pass_time(dispatcher, clock)
    sink.answer = lambda one: (
        throttled(30)
        if one.part is Part.EDIT and clock.now() < NOW + timedelta(seconds=30)
        else {"ts": "1"}
    )
    await store.record(told(event(1, 2, Edge.UPDATED), sink="chat", parts=CHAT), NOW)
    await pass_time(dispatcher, clock, 10)
    await store.record(told(event(2), sink="chat", parts=(Part.POST,)), NOW)
    await store.record(told(event(1, 3, Edge.RECOVERED), sink="chat", parts=CHAT), NOW)
    await pass_time(dispatcher, clock, 10)
    await store.record(told(event(2, 2, Edge.UPDATED), sink="chat", parts=CHAT), NOW)
    await pass_time(dispatcher, clock, 60)
    assert list(zip(sink.times, sink.told, strict=True)) == [
        (0, "app-1/1 post"), (0, "app-1/2 reply"), (0, "app-1/2 edit"),
        (10, "app-2/1 post"), (10, "app-1/3 reply"),
        (20, "app-2/2 reply"),
        (30, "app-2/2 edit"), (30, "app-1/3 edit"),
    ]  # fmt: skip


async def test_a_sink_that_is_down(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """Row 1: ten minutes down: few requests, all told soon after, late, and what is over in one line."""
    for number in range(1, 6):
        await store.record(told(event(number), sink="chat", parts=(Part.POST,)), NOW)
    sink = ScriptedSink(clock, name="chat")
    sink.answer = lambda _: REFUSED if clock.now() < NOW + timedelta(minutes=10) else {"ts": "1"}
    dispatcher = dispatch(sink, clock)
    await pass_time(dispatcher, clock, 300)
    for number in (1, 2):
        ended = told(event(number, 2, Edge.RECOVERED), sink="chat", parts=CHAT)
        await store.record(ended, clock.now())
    await pass_time(dispatcher, clock, 299)
    assert len(sink.sent) <= 40
    assert dispatcher.state.breaker.until
    sink.sent.clear()
    sink.times.clear()
    await pass_time(dispatcher, clock, 36)
    assert all(600 <= time <= 635 for time in sink.times)
    assert sorted(sink.told) == [
        "app-1/2 post", "app-2/2 post", "app-3/1 post", "app-4/1 post", "app-5/1 post",
    ]  # fmt: skip
    for one in sink.sent:
        assert "connect" in " ".join(one.message.notes), "why it is late"
    assert not dispatcher.state.probing
    assert (await outcomes(store))["app-1/1 post"] is DeliveryState.SUPERSEDED


async def test_parked_and_resumed(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """A sink that needs a human keeps its queue and is probed slowly; mended, it gets all in order."""
    for number in (1, 2):
        await store.record(told(*outage(number)), NOW)
    sink = ScriptedSink(clock, concurrency=1)
    sink.answer = lambda _: PARKED if clock.now() < NOW + timedelta(minutes=14) else None
    dispatcher = dispatch(sink, clock)
    await dispatcher.start()
    await pass_time(dispatcher, clock, 60)
    assert (dispatcher.state.trouble, len(sink.sent)) == ("invalid_auth", 1)
    assert (await store.queue())[0][1:3] == (DeliveryState.PARKED, 1)
    await pass_time(dispatcher, clock, 20 * 60)
    assert sink.times == [0, 300, 600, 900, 900, 900, 900]
    assert sink.told[3:] == ["app-2/1 event", "app-2/2 event", "app-1/1 event", "app-1/2 event"]
    assert [line for line in reports.lines if line.startswith("sink.")] == [
        "sink.failing degraded hook", "sink.restored recovered hook",
    ]  # fmt: skip
    assert dispatcher.state.trouble == ""


async def test_a_restart_probes_a_parked_sink(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """What was known of the sink is remembered, but a restart may be the operator's answer."""
    await store.record(told(event(1)), NOW)
    await store.record(told(event(2)), NOW)
    await pass_time(dispatch(ScriptedSink(clock, PARKED, concurrency=1), clock), clock, 60)
    sink = ScriptedSink(clock, PARKED)
    again = dispatch(sink, clock)
    await again.start()
    assert again.state.trouble == "invalid_auth"
    await pass_time(again, clock)
    assert sink.times == [60], "at once, but one at a time, although four could go"


async def test_a_message_that_is_gone(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """If the message to edit was deleted, it is posted anew under the same id, and followed from there."""
    gone = SinkError("message_not_found", Outcome.REPOST)
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    sink = ScriptedSink(clock, {"ts": "old"}, gone, {"ts": "new"}, name="chat")
    dispatcher = dispatch(sink, clock)
    await pass_time(dispatcher, clock)
    await store.record(told(event(1, 2, Edge.UPDATED), sink="chat", parts=(Part.EDIT,)), NOW)
    await pass_time(dispatcher, clock)
    await store.record(told(event(1, 3, Edge.RECOVERED), sink="chat", parts=(Part.REPLY,)), NOW)
    await pass_time(dispatcher, clock)
    await store.record(told(event(1, 3, Edge.RECOVERED), sink="chat", parts=(Part.EDIT,)), NOW)
    await pass_time(dispatcher, clock)
    assert sink.told[:3] == ["app-1/1 post", "app-1/2 edit", "app-1/2 post"]
    assert sink.told[3:] == ["app-1/3 reply", "app-1/3 edit"]
    assert sink.sent[1].delivery_id == sink.sent[2].delivery_id
    threads = [one.thread and one.thread["ts"] for one in sink.sent]
    assert threads == [None, "old", "old", "new", "new"]


async def test_an_opening_that_nobody_took(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """If the opening was refused for good, the end is not lost: it is posted by itself."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    sink = ScriptedSink(clock, BAD, BAD, name="chat")
    dispatcher = dispatch(sink, clock)
    await pass_time(dispatcher, clock)
    await store.record(told(event(1, 2, Edge.RECOVERED), sink="chat", parts=CHAT), NOW)
    await pass_time(dispatcher, clock)
    assert sink.told[2:] == ["app-1/2 post", "app-1/2 edit"]
    assert sink.sent[-1].thread == {"ts": "3"}


@pytest.mark.parametrize(
    ("answers", "forms", "state", "report"),
    [
        pytest.param([BAD], [False, True], DeliveryState.DELIVERED, "sent app-1/1", id="plain"),
        pytest.param(
            [BAD, BAD],
            [False, True],
            DeliveryState.DEAD,
            "abandoned invalid_blocks app-1/1",
            id="neither",
        ),
        pytest.param(
            [KeyError("channel")],
            [False],
            DeliveryState.DEAD,
            "abandoned bug app-1/1",
            id="a bug of ours",
        ),
    ],
)
async def test_a_message_the_sink_will_not_take(
    store: WatchedStore,
    clock: ManualClock,
    reports: Reports,
    dispatch: Build,
    answers: list[Exception],
    forms: list[bool],
    state: DeliveryState,
    report: str,
) -> None:
    """Rows 9, 10: it is tried once more in plain text at once; what follows goes on either way."""
    await store.record(told(*outage(1)), NOW)
    sink = ScriptedSink(clock, *answers)
    await pass_time(dispatch(sink, clock), clock)
    assert [one.plain for one in sink.sent] == [*forms, False]
    assert await outcomes(store) == {
        "app-1/1 event": state,
        "app-1/2 event": DeliveryState.DELIVERED,
    }
    assert reports.lines == [report, "sent app-1/2"]


async def test_too_old_to_be_of_use(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """What waited longer than its sink's limit is not sent, and not silently."""
    for number in range(2, 12):
        await store.record(told(event(number)), NOW)
    await store.record(told(event(1)), NOW + timedelta(seconds=1))
    clock.set(NOW + timedelta(hours=1, seconds=1))
    sink = ScriptedSink(clock, rate=1)
    await pass_time(dispatch(sink, clock), clock)
    assert sink.told == ["app-1/1 event"], "and what is not sent does not use up its rate"
    assert "expired app-2/1" in reports.lines
    assert len(reports.lines) == 11
    assert (await outcomes(store))["app-2/1 event"] is DeliveryState.EXPIRED


@pytest.mark.parametrize(
    ("waited", "notes"),
    [
        pytest.param(60, 0, id="in time"),
        pytest.param(61, 1, id="late"),
    ],
)
async def test_late_messages_say_so(
    store: WatchedStore, clock: ManualClock, dispatch: Build, waited: float, notes: int
) -> None:
    """On-call must not act on old news: a late message says that it is, and why."""
    await store.record(told(event(1)), NOW)
    clock.set(NOW + timedelta(seconds=waited))
    sink = ScriptedSink(clock)
    await pass_time(dispatch(sink, clock), clock)
    delays = [note for note in sink.sent[0].message.notes if "not running" in note]
    assert len(delays) == notes


async def test_the_rate(store: WatchedStore, clock: ManualClock, dispatch: Build) -> None:
    """A burst of five, then what the sink bears, across incidents and parts."""
    for number in range(1, 9):
        await store.record(told(event(number)), NOW)
    sink = ScriptedSink(clock, rate=0.5, concurrency=8)
    await pass_time(dispatch(sink, clock), clock, 30)
    assert sink.times == [0, 0, 0, 0, 0, 2, 4, 6]


async def test_concurrency(store: WatchedStore, clock: ManualClock, dispatch: Build) -> None:
    """As many incidents at once as the sink takes, and one delivery of each."""
    for number in (1, 2, 3):
        await store.record(told(*outage(number)), NOW)
    sink = ScriptedSink(clock, concurrency=2)
    sink.open.clear()
    dispatcher = dispatch(sink, clock)
    for _ in range(3):
        await dispatcher.step(NOW)
        await asyncio.wait_for(_until(lambda: len(sink.sent) == 2), 5)
    assert sink.told == ["app-3/1 event", "app-2/1 event"]
    sink.open.set()
    await pass_time(dispatcher, clock)
    assert len(sink.sent) == 6


async def test_an_attempt_without_end(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """A sink that never answers is given up on; the delivery may have arrived."""
    await store.record(told(event(1)), NOW)
    sink = ScriptedSink(clock)
    sink.open.clear()
    await pass_time(dispatch(sink, clock, timeout=0.05), clock)
    sink.open.set()
    (claimed,) = await store.claim("hook", NOW + timedelta(seconds=1), 1)
    assert (claimed.ambiguous, claimed.last_error, claimed.attempts) == (True, "timeout", 1)


async def test_a_crash_in_mid_send(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """What was under way when the process died is sent again under the same id."""
    await store.record(told(*outage(1)), NOW)
    sink = ScriptedSink(clock)
    sink.open.clear()
    running = asyncio.create_task(dispatch(sink, clock, grace=0).run())
    await asyncio.wait_for(_until(lambda: bool(sink.sent)), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    sink.open.set()
    again = dispatch(sink, clock)
    await again.start()
    await pass_time(again, clock)
    assert sink.told == ["app-1/1 event", "app-1/1 event", "app-1/2 event"]
    assert sink.sent[0].delivery_id == sink.sent[1].delivery_id
    assert [row.attempts for row in await store.history()] == [1, 2]


async def test_a_shutdown_lets_sends_finish(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """What is under way has its grace and is settled; the rest stays for the next start.

    So too if it was about to end already: a reload had changed its sink.
    """
    await store.record(told(*outage(1)), NOW)
    sink = ScriptedSink(clock)
    sink.open.clear()
    running = asyncio.create_task(dispatch(sink, clock).run())
    await asyncio.wait_for(_until(lambda: bool(sink.sent)), 5)
    for _ in range(2):
        running.cancel()
        await asyncio.wait([running], timeout=0.05)
    sink.open.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await outcomes(store) == {
        "app-1/1 event": DeliveryState.DELIVERED,
        "app-1/2 event": DeliveryState.PENDING,
    }


async def test_one_sink_does_not_delay_another(store: WatchedStore, dispatch: Build) -> None:
    """While one sink hangs, another is woken by the commit and has its delivery at once."""
    clock = SystemClock()
    stuck, quick = ScriptedSink(clock, name="stuck"), ScriptedSink(clock, name="quick")
    stuck.open.clear()
    dispatchers = [dispatch(sink, clock, grace=0) for sink in (stuck, quick)]
    tasks = [asyncio.create_task(one.run()) for one in dispatchers]
    for number in (1, 2):
        for sink in ("stuck", "quick"):
            await store.record(told(event(number), sink=sink), clock.now())
        for one in dispatchers:
            one.wake()
        await asyncio.wait_for(_until(lambda: len(quick.sent) == number), 5)  # noqa: B023
    await asyncio.wait_for(_until(lambda: len(stuck.sent) == 2), 5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_idle_dispatcher_asks_nothing(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """A day without news costs no look at the store; one that waits costs one when it is due."""
    sink = ScriptedSink(clock)
    sink.answer = lambda _: (
        SinkError("http_503", Outcome.RETRY_SLOWLY) if len(sink.sent) == 1 else None
    )
    running = asyncio.create_task(dispatch(sink, clock).run())
    await asyncio.wait_for(_until(lambda: store.calls == 5), 5)
    await clock.advance(86_400)
    assert store.calls == 5
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    waiting = dispatch(sink, clock)
    await store.record(told(event(1)), clock.now())
    store.calls = 0
    await pass_time(waiting, clock, 899)
    assert (len(sink.sent), store.calls) == (1, 5)
    await pass_time(waiting, clock, 1)
    assert len(sink.sent) == 2
    assert store.calls <= 12


async def test_a_failing_store(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """The dispatcher asks less and less often, says so, and goes on when the store does."""
    sink = ScriptedSink(clock)
    dispatcher = dispatch(sink, clock)
    running = asyncio.create_task(dispatcher.run())
    await asyncio.wait_for(_until(lambda: store.calls == 5), 5)
    await store.record(told(event(1)), NOW)
    store.failing = True
    store.calls = 0
    dispatcher.wake()
    await clock.advance(300)
    assert store.calls == len(reports.lines) == 6 + 8  # 1, 2, 4, 8, 16 s, then every 30
    store.failing = False
    dispatcher.store_restored()
    await asyncio.wait_for(_until(lambda: reports.lines[-1] == "sent app-1/1"), 5)
    assert clock.now() - NOW == timedelta(seconds=300), "no wait was left to end"
    assert sink.told == ["app-1/1 event"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_claim_whose_answer_was_lost(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """A claim that was committed although the store failed to say so is sent, and nothing twice."""
    await store.record(told(event(1)), NOW)
    sink = ScriptedSink(clock)
    sink.open.clear()
    dispatcher = dispatch(sink, clock)
    await dispatcher.step(NOW)
    await asyncio.wait_for(_until(lambda: bool(sink.sent)), 5)
    await store.record(told(event(2)), NOW)
    store.lost = "claim"
    with pytest.raises(StoreError):
        await dispatcher.step(NOW)
    sink.open.set()
    await pass_time(dispatcher, clock)
    assert sink.told == ["app-1/1 event", "app-2/1 event"]


async def test_a_settlement_the_store_did_not_take(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """What was sent is not sent again because the store failed meanwhile; its incident waits."""
    await store.record(told(*outage(1)), NOW)
    sink = ScriptedSink(clock)
    sink.open.clear()
    dispatcher = dispatch(sink, clock)
    await dispatcher.step(NOW)
    await asyncio.wait_for(_until(lambda: bool(sink.sent)), 5)
    store.failing = True
    sink.open.set()
    await asyncio.wait_for(_until(lambda: bool(reports.lines)), 5)
    store.failing = False
    await clock.advance(1)
    await dispatcher.finish()
    await pass_time(dispatcher, clock)
    assert sink.told == ["app-1/1 event", "app-1/2 event"]


async def test_what_is_superseded_is_reported(
    store: WatchedStore, clock: ManualClock, reports: Reports, dispatch: Build
) -> None:
    """Every delivery that is not sent has its line, which names the one that tells it."""
    await store.record(told(event(1), sink="chat", parts=(Part.POST,)), NOW)
    await store.record(told(event(1, 2, Edge.RECOVERED), sink="chat", parts=CHAT), NOW)
    await pass_time(dispatch(ScriptedSink(clock, name="chat"), clock), clock)
    assert reports.lines == [
        "superseded post1 by post", "superseded edit2 by post", "superseded reply2 by post",
        "sent app-1/2",
    ]  # fmt: skip


async def _until(true: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # noqa: TID251 - the store's thread is real


async def test_an_idle_sink_is_handed_what_is_committed(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """Nobody asks the queue for it, and it is settled like any other."""
    sink = ScriptedSink(clock)
    hook = dispatch(sink, clock)
    assert not hook.lend(), "it does not know yet what was left in flight"
    await pass_time(hook, clock)
    assert hook.lend()
    assert not hook.lend(), "it waits for a commit already"
    claims = await store.record(told(event(1)), NOW, ["hook"])
    calls = store.calls
    assert await hook.step(NOW) is None, "what it takes meanwhile could be the same"
    hook.give(claims)
    assert not hook.lend(), "it is busy"
    await hook.finish()
    assert (sink.told, store.calls - calls) == (["app-1/1 event"], 1)
    assert set((await outcomes(store)).values()) == {DeliveryState.DELIVERED}
    await pass_time(hook, clock, 60)
    assert hook.lend()
    hook.give({})
    assert sink.told == ["app-1/1 event"]


async def test_what_was_handed_over_by_an_unsure_commit_is_sent_once(
    store: WatchedStore, clock: ManualClock, dispatch: Build
) -> None:
    """It is found in flight with nobody sending it, as after a crash."""
    sink = ScriptedSink(clock)
    hook = dispatch(sink, clock)
    await pass_time(hook, clock)
    assert hook.lend()
    store.lost = "record"
    with pytest.raises(StoreError):
        await store.record(told(event(1)), NOW, ["hook"])
    hook.give(None)
    await pass_time(hook, clock, 60)
    assert sink.told == ["app-1/1 event"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(throttled(30), id="paused"),
        pytest.param(REFUSED, id="breaker"),
        pytest.param(PARKED, id="parked"),
    ],
)
async def test_a_sink_in_trouble_is_handed_nothing(
    store: WatchedStore, clock: ManualClock, dispatch: Build, error: SinkError
) -> None:
    """What it is spared, a commit spares it too."""
    sink = ScriptedSink(clock)
    hook = dispatch(sink, clock)
    await pass_time(hook, clock)
    sink.answer = lambda _: error
    await store.record(told(*(event(number) for number in range(5))), NOW)
    await pass_time(hook, clock, 20)
    assert not hook.lend()
    sink.answer = lambda _: None
    await pass_time(hook, clock, 3600)
    assert hook.lend()
