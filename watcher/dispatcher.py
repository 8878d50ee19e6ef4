"""Per sink: claim due deliveries, send them, settle them; in order, and never faster than it bears."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from msgspec.structs import replace

from watcher.attempt import attempt, lateness
from watcher.core import words
from watcher.core.delivery import DeliveryState, Outcome
from watcher.core.events import Event
from watcher.core.planning import Audience
from watcher.core.retry import Failure, Pace, SinkState, settle_failure
from watcher.errors import Deposed, SinkError, StoreError
from watcher.ports import Claim, Clock, Settlement, Sink, Store
from watcher.reporting import Reporting
from watcher.trouble import Trouble

T = TypeVar("T")

_HEAD_START: Final = timedelta(milliseconds=50)
_TOLD_AFTER: Final = timedelta(seconds=60)
"""Other sinks are told of one that has failed so long, or is known to before it is tried again."""


@dataclass(eq=False)
class Dispatcher:
    """Empties the queue of one sink, one delivery of an incident at a time.

    `told` are the sinks that hear of it when this one fails. `timeout` ends one attempt, its second
    form included (a sink's own timeouts are shorter), and `grace` what is under way at a shutdown;
    `jitter` draws from 0 to 1.
    """

    sink: Sink
    store: Store
    clock: Clock
    reporting: Reporting
    _: KW_ONLY
    told: Sequence[Audience] = ()
    timeout: timedelta = timedelta(seconds=30)
    grace: timedelta = timedelta(seconds=10)
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        self.name = self.sink.traits.name
        self.state = SinkState()
        self._trouble = Trouble(self.name, self.store, self.told, self.reporting)
        rate = self.sink.traits.rate
        self._pace = Pace(timedelta(seconds=1 / rate if rate else 0))
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._unsure = True
        """Rows may be in flight that nobody sends: of the process before, or of a lost answer."""
        self._lent = False
        self._head_start_until = self.clock.now()
        self._woken = asyncio.Event()
        self._store_works = asyncio.Event()
        self._in_the_way = (self.clock.now(), "the watcher was not running")
        """Until when something was in the way, and what."""

    def wake(self) -> None:
        """Look at the queue now: something was committed to it."""
        self._woken.set()

    def store_restored(self) -> None:
        """Ask the store at once what it has refused."""
        self._store_works.set()
        self._store_works = asyncio.Event()

    def breaker(self) -> int:
        """How the breaker stands now: see `core.retry`."""
        return self.state.breaker.state(self.clock.now())

    def resume(self) -> None:
        """Try at once what its troubles would have spared the sink: somebody has mended it."""
        self.state = self.state.restarted(self.clock.now())
        self.wake()

    def lend(self) -> bool:
        """See `recording.Courier`."""
        now, busy = self.clock.now(), self._unsure or self._lent or self._in_flight
        if busy or self.state.probing or self.state.held_until(now) or not self._pace.room(now):
            return False
        self._lent = True
        return True

    def give(self, claims: Mapping[str, Claim] | None) -> None:
        """See `recording.Courier`; of a former term it is left to whoever reclaims it."""
        self._unsure |= claims is None
        if claims and self._lent and (claim := claims.get(self.name)):
            now = self.clock.now()
            self._begin(claim, now)
            self._head_start_until = now + _HEAD_START
        self._lent = False
        self.wake()

    async def run(self) -> None:
        """Dispatch until cancelled; then what is in flight has its grace, the rest stays queued."""
        await self.start()
        try:
            while True:
                until = await self._insist(lambda: self.step(self.clock.now()))
                await self.clock.wait(self._woken, until)
        finally:
            self._unsure, self._lent = True, False
            ending = asyncio.ensure_future(self._drain())
            while not ending.done():  # a shutdown soon after a reload cuts nothing short
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([ending])

    async def start(self) -> None:
        """Take over what the process before, or this one in an earlier term, knew of the sink."""
        self._in_flight.clear()
        self._unsure, self._lent = True, False
        state = await self._insist(lambda: self.store.sink_state(self.name))
        self._trouble.restore(await self._insist(lambda: self.store.load("")))
        now = self.clock.now()
        self.state = state.restarted(now)
        if state.failing_since is None:
            self.reporting.answers(self.name)
        if state.trouble:
            self._in_the_way = (now, state.trouble)

    async def step(self, now: datetime) -> datetime | None:
        """Start sending all that may be sent now.

        Returns when to step again; None if nothing is to be done before `wake`, which the end of
        each attempt calls too. Raises StoreError.
        """
        self._woken.clear()
        for task in self._in_flight.values():
            if task.done():
                task.result()  # only what should never be raised is still here
        if (held := self.state.held_until(now)) is not None:
            return held
        if self._lent:
            return None
        if self._in_flight and now < self._head_start_until:
            return self._head_start_until
        places = self.state.places(self.sink.traits.concurrency) - len(self._in_flight)
        if places <= 0:
            return None
        room = min(places, self._pace.room(now))
        return await self._take(now, room) if room else self._pace.ready_at

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return len(self._in_flight)

    async def finish(self) -> None:
        """Wait until no attempt is under way."""
        while under_way := [task for task in self._in_flight.values() if not task.done()]:
            await asyncio.wait(under_way)

    async def _take(self, now: datetime, room: int) -> datetime | None:
        if self._unsure:
            await self.store.reclaim(self.name, now, tuple(self._in_flight))
        self._unsure = True
        claims = await self.store.claim(self.name, now, room, self.state.edits_from)
        self._unsure = False
        for claim in claims:
            self._begin(claim, now)
        if len(claims) == room:
            return now
        if claims:  # they go first: looking up what is due later would only hold them up
            return now + _HEAD_START
        return await self.store.next_due(self.name)

    def _begin(self, claim: Claim, now: datetime) -> None:
        for delivery in claim.superseded:
            self.reporting.superseded(claim.delivery, delivery)
        if now - (claim.redriven_at or claim.recorded_at) > self.sink.traits.max_age:
            ends = self._expire(claim)
        else:
            ends = self._deliver(claim)
            self._pace = self._pace.took(now)
        task = asyncio.create_task(ends)
        task.add_done_callback(lambda _: self.wake())
        self._in_flight[claim.delivery.incident] = task

    async def _expire(self, claim: Claim) -> None:
        now = self.clock.now()
        _, why = lateness(claim, now, self._in_the_way)
        why = claim.last_error or why or "expired"
        news = "" if claim.last_error else why  # which keeps its detail
        end = Settlement(claim.delivery.id, DeliveryState.EXPIRED, now, reason=news, counted=False)
        await self._settle(end, self.state)
        self.reporting.expired(claim, why)
        await self._tell(why, now, lost=True)
        del self._in_flight[claim.delivery.incident]

    async def _deliver(self, claim: Claim) -> None:
        began = self.clock.now()
        late, why = lateness(claim, began, self._in_the_way)
        told = await self._told(claim)
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                receipt = await attempt(self.sink, claim, self.clock, self._in_the_way, told)
        except SinkError as error:
            await self._failed(claim, error)
        except TimeoutError:
            await self._failed(claim, SinkError("timeout", Outcome.RETRY, ambiguous=True))
        else:
            now = self.clock.now()
            why = why if late and not claim.last_error else ""
            name, done = claim.delivery.id, DeliveryState.DELIVERED
            end = Settlement(name, done, now, reason=why, receipt=receipt)
            await self._settle(end, self.state.answered(now))
            self.reporting.sent(claim, now, now - began)
        del self._in_flight[claim.delivery.incident]

    async def _told(self, claim: Claim) -> Sequence[Event]:
        if self.sink.traits.restated_every is None:
            return ()
        return await self._insist(lambda: self.store.told(self.name, claim.delivery.incident))

    async def _failed(self, claim: Claim, error: SinkError) -> None:
        now, part = self.clock.now(), claim.delivery.part
        age = now - (claim.redriven_at or claim.recorded_at)
        failure = Failure(error.outcome, part, claim.attempts, age, error.reason, error.retry_after)
        max_age = self.sink.traits.max_age
        verdict, state = settle_failure(failure, self.state, max_age, now, self.jitter())
        if verdict.due:
            self._in_the_way = (verdict.due, error.reason)
        end = Settlement(
            claim.delivery.id, verdict.state, now, verdict.due, error.reason, error.detail,
            counted=verdict.counted, ambiguous=error.ambiguous,
        )  # fmt: skip
        await self._settle(end, state)
        again = state.breaker.knocking and claim.last_error == error.reason
        self.reporting.failed(claim, error, verdict, again=again)
        lost = verdict.state is DeliveryState.EXPIRED
        if lost or error.outcome is Outcome.RETRY_SLOWLY or self._fails_for_long(now):
            await self._tell(str(error), now, lost=lost)

    def _fails_for_long(self, now: datetime) -> bool:
        since, held = self.state.failing_since, self.state.held_until(now)
        return since is not None and held is not None and held - since > _TOLD_AFTER

    async def _tell(self, error: str, now: datetime, *, lost: bool) -> None:
        """Tell the other sinks that this one cannot deliver; asked for as often as it fails."""
        what = "What was too old is given up" if lost else "Its messages are kept until it works"
        why = f"It cannot deliver: {words.trouble(error)}. {what}"
        since = self.state.failing_since or now
        await self._insist(lambda: self._trouble.begins(why, since, now, critical=lost))

    async def _settle(self, end: Settlement, state: SinkState) -> None:
        """The incident waits until its end is written, or the next delivery could overtake it."""
        before, self.state = self.state, state
        end = replace(end, sink=state if state != before else None)
        await self._insist(lambda: self.store.settle(end))
        if state.failing_since is None:
            self.reporting.answers(self.name)
            await self._insist(lambda: self._trouble.ends(end.at))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it answers, after 1, 2, 4 … 30 s, or once it works. Raises Deposed."""
        wait = 1.0
        while True:
            try:
                return await ask()
            except StoreError as error:
                self.reporting.store_refused(error)
                if isinstance(error, Deposed):
                    raise
                until = self.clock.now() + timedelta(seconds=wait)
                await self.clock.wait(self._store_works, until)
                wait = min(2 * wait, 30.0)

    async def _drain(self) -> None:
        tasks = tuple(self._in_flight.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace.total_seconds()):
                await self.finish()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
