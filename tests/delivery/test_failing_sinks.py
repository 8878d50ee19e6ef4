"""A sink that cannot deliver is told through the others, once, and so is its return: promise P6."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.delivery.rig import WARNING, Recording, Rig, rig
from tests.deployments import ZERO
from watcher.core.delivery import Outcome, Part
from watcher.core.events import Resolution
from watcher.core.model import Json
from watcher.errors import SinkError
from watcher.ports import Notification, Traits
from watcher.restating import Restating
from watcher.trouble import Trouble

INVALID = SinkError("invalid_auth", Outcome.PARK)
REFUSED = SinkError("connection_refused", Outcome.UNREACHED, detail="connection refused")
MOVED = SinkError("redirect", Outcome.RETRY_SLOWLY, detail="HTTP 302")


def troubles(sink: Recording) -> list[str]:
    return [line for line in sink.told if line.startswith("sink.")]


class Failing(Recording):
    """Fails with `error` until a time."""

    def __init__(self, error: SinkError, until: float, rig_clock: list[Rig]) -> None:
        super().__init__("oncall")
        self.traits = Traits("oncall", chat=True, threads=True, max_age=timedelta(hours=1))
        self._error = error
        self._until = ZERO + timedelta(seconds=until)
        self._rig = rig_clock
        self.attempts = 0

    async def send(self, notification: Notification) -> Json | None:
        self.attempts += 1
        if self._rig[0].clock.now() < self._until:
            raise self._error
        return await super().send(notification)


@pytest.mark.parametrize(
    ("error", "until", "told_by"),
    [
        pytest.param(INVALID, 900, 0, id="parked: at once"),
        pytest.param(MOVED, 900, 0, id="redirected: at once"),
        pytest.param(REFUSED, 600, 60, id="down for a minute"),
        pytest.param(
            SinkError("rate_limited", Outcome.THROTTLED, retry_after=timedelta(seconds=300)),
            200, 0, id="told to wait for minutes: at once",
        ),
        pytest.param(REFUSED, 30, None, id="down for half a minute: nobody"),
        pytest.param(
            SinkError("rate_limited", Outcome.THROTTLED, retry_after=timedelta(seconds=30)),
            20, None, id="told to wait for half a minute: nobody",
        ),
    ],
)  # fmt: skip
async def test_the_others_are_told_once(
    tmp_path: Path, error: SinkError, until: float, told_by: float | None
) -> None:
    """Row 11: within a minute the other sinks hear of it, once, and once of its return."""
    made: list[Rig] = []
    oncall, hook = Failing(error, until, made), Recording("hook")
    chat = Recording("chat", chat=True, threads=True)
    async with rig(tmp_path, oncall, hook, chat) as it:
        made.append(it)
        await it.opens("web")
        await it.passes(told_by or 0)
        failing = [] if told_by is None else ["sink.failing oncall"]
        assert troubles(hook) == failing
        assert troubles(chat) == failing
        assert b'sink_failing{sink="oncall"} %.1f' % bool(failing) in it.metrics.render([])
        await it.passes(2 * 3600)
        restored = [line.replace("failing", "restored") for line in failing]
        assert troubles(hook) == failing + restored
        assert troubles(chat) == failing + 2 * restored, "an edit, and a reply"
        assert oncall.told == ["deployment.degraded web"], "it hears nothing of itself"
        assert it.view.sink_troubles == {}
        assert b'sink_failing{sink="oncall"} 0.0' in it.metrics.render([])
        assert [line["sink"] for line in it.lines("sink.failing")] == ["oncall"] * len(failing)


async def test_what_it_says(tmp_path: Path) -> None:
    """Which sink, since when, why, and what becomes of its messages."""
    made: list[Rig] = []
    chat = Recording("chat", chat=True, threads=True)
    async with rig(tmp_path, Failing(INVALID, 900, made), chat) as it:
        made.append(it)
        await it.opens("web")
        await it.passes(1000)
    failing, _, restored = (n.message for n in chat.sent if not n.event.subject.cluster)
    assert failing.text == (
        "Failing: the watcher's sink oncall since 00:00 UTC (0 s). It cannot deliver: invalid auth."
        " Its messages are kept until it works. Start with: watcher outbox list --sink oncall"
    )
    assert restored.text == (
        "Restored: the watcher's sink oncall. It failed 00:00\N{EN DASH}00:15 UTC (15 min)"
        " and delivers again, what had to wait is on its way."
    )
    assert [n.message.broadcast for n in chat.sent if n.part is Part.REPLY] == [True]


async def test_a_restart_neither_repeats_nor_forgets_it(tmp_path: Path) -> None:
    """The incident is in the store: after a restart its end is told to those who heard of it."""
    made: list[Rig] = []
    async with rig(tmp_path, Failing(INVALID, 900, made), Recording("hook")) as it:
        made.append(it)
        await it.opens("web")
        await it.passes(10)
    again = Recording("hook")
    async with rig(tmp_path, Failing(INVALID, 900, made), again, clock=it.clock) as it:
        made[0] = it
        await it.passes(1000)
    assert again.told == ["sink.restored oncall"]


async def test_a_sink_that_is_removed_is_no_trouble_any_more(tmp_path: Path) -> None:
    """Whoever heard that it fails hears that it is not used any more."""
    made: list[Rig] = []
    async with rig(tmp_path, Failing(INVALID, 900, made), Recording("hook")) as it:
        made.append(it)
        await it.opens("web", severity=WARNING)
        await it.passes(10)
    hook = Recording("hook")
    async with rig(tmp_path, hook, clock=it.clock) as it:
        trouble = Trouble("oncall", it.store, it.audiences, it.reporting)
        trouble.restore(await it.store.load(""))
        await trouble.ends(it.clock.now(), Resolution.NOT_WATCHED)
        await it.passes(10)
    assert [(one.event.edge, one.part) for one in hook.sent] == [("closed", Part.EVENT)]
    assert hook.told == ["sink.restored oncall"], "its end has the type of an end"


@pytest.mark.parametrize("restarted", [False, True], ids=["back by itself", "mended by a restart"])
async def test_why_each_was_late_is_on_record(tmp_path: Path, restarted: bool) -> None:
    """Also of what was not tried before the sink was back; and it is what its message says."""
    made: list[Rig] = []
    oncall: Recording = Failing(REFUSED, 9000 if restarted else 330, made)
    async with rig(tmp_path, oncall) as it:
        made.append(it)
        await it.opens("web")
        await it.passes(100)
        await it.opens("api", "db", "job")
        await it.passes(200)
        assert [row for row in await it.rows("oncall") if not row.first_attempt_at], "it waits"
        await it.passes(0 if restarted else 100)
    if restarted:
        oncall = Recording("oncall", chat=True, threads=True)
    async with rig(tmp_path, oncall, clock=it.clock) as it:
        await it.passes(60)
        rows = {row.delivery.id: row for row in await it.rows("oncall")}
    assert len(rows) == len(oncall.sent) == 4
    assert {(r.delivery.state, r.delivery.reason) for r in rows.values()} == {
        ("delivered", "connection_refused")
    }
    assert min(row.late or 0 for row in rows.values()) > 60
    for one in oncall.sent:
        assert any("connection refused" in note for note in one.message.notes)


async def test_what_is_given_up_is_told(tmp_path: Path) -> None:
    """Row 72: a message that became too old is on record, and the other sinks are told, once."""
    made: list[Rig] = []
    hook = Recording("hook")
    async with rig(tmp_path, Failing(REFUSED, 3 * 3600, made), hook) as it:
        made.append(it)
        await it.opens("web", "api")
        await it.passes(4 * 3600)
        assert set((await it.states("oncall")).values()) == {"expired"}
        rows = {row.delivery.id: row for row in await it.rows("oncall")}
        assert {row.delivery.reason for row in rows.values()} == {"connection_refused"}, "why not?"
        lines = it.lines("notification.expired")
        assert len(lines) == 2
        for line in lines:
            row = rows[line["delivery"]]
            assert (line["reason"], line["attempts"]) == (row.delivery.reason, row.attempts)
    assert troubles(hook) == ["sink.failing oncall"] * 2
    first, second = (n.event for n in hook.sent if not n.event.subject.cluster)
    assert (first.severity, second.severity, second.worsened) == ("warning", "critical", True)
    assert "What was too old is given up" in second.message


async def test_why_something_was_never_tried_is_in_the_log_too(tmp_path: Path) -> None:
    """P5: the echo of what became too old while nothing ran has the reason that is on record."""
    oncall = Recording("oncall", chat=True, max_age=timedelta(hours=1))
    async with rig(tmp_path, oncall) as it:
        await it.opens("web")
    it.clock.set(ZERO + timedelta(hours=2))
    async with rig(tmp_path, oncall, clock=it.clock) as it:
        await it.passes(1)
        [row] = await it.rows("oncall")
        [line] = it.lines("notification.expired")
    assert not oncall.sent
    assert line["reason"] == row.delivery.reason == "the watcher was not running"


async def test_all_sinks_down(tmp_path: Path) -> None:
    """Row 73: nobody can be told, which the log and the metrics say; the queue is kept."""
    made: list[Rig] = []
    oncall = Failing(INVALID, 900, made)
    async with rig(tmp_path, oncall) as it:
        made.append(it)
        await it.opens("web")
        await it.passes(60)
        assert [line["sink"] for line in it.lines("sink.failing")] == ["oncall"]
        queue = await it.store.queue()
        assert [(row[0], row[1], row[2]) for row in queue] == [("oncall", "parked", 1)]
        assert b'sink_parked{sink="oncall"} 1.0' in it.metrics.render(queue)
        await it.passes(900)
    assert oncall.told == ["deployment.degraded web"]


async def test_attempts_that_fail_together_are_one_trouble(tmp_path: Path) -> None:
    """Several at once may find the sink parked: the others hear of it once, and once of its end."""
    hook = Recording("hook")
    async with rig(tmp_path, Recording("oncall"), hook) as it:
        trouble = Trouble("oncall", it.store, it.audiences, it.reporting)
        trouble.restore(())
        now = it.clock.now()
        times = [now + timedelta(milliseconds=number) for number in range(4)]
        await asyncio.gather(*(trouble.begins("parked", now, at) for at in times))
        await it.passes(1)
        await asyncio.gather(*(trouble.ends(at) for at in times))
        await it.passes(1)
        assert troubles(hook) == ["sink.failing oncall", "sink.restored oncall"]


async def test_a_sink_that_refuses_a_message_works(tmp_path: Path) -> None:
    """It was down and then answered, if only that it will not have this one: it is in no trouble."""
    made: list[Rig] = []
    oncall = Failing(REFUSED, 60, made)
    async with rig(tmp_path, oncall) as it:
        made.append(it)
        await it.opens("web")
        assert it.view.sink_troubles == {}
        await it.passes(10)
        assert list(it.view.sink_troubles) == ["oncall"]
        oncall._error = SinkError("http_400", Outcome.BAD_PAYLOAD)
        await it.passes(40)
        assert set((await it.states("oncall")).values()) == {"dead"}
        assert it.view.sink_troubles == {}


async def test_a_new_term_knows_only_what_is_stored(tmp_path: Path) -> None:
    """Another process delivered meanwhile: what this one knew of the sink's trouble is over."""
    async with rig(tmp_path, Recording("oncall")) as it:
        it.view.sink_troubles["oncall"] = "it was down in an earlier term"
        await it.start()
        assert it.view.sink_troubles == {}


class Peers(Recording):
    """A level-triggered sink whose peers are all away."""

    rounds = 0

    async def restate(self, standing: Sequence[Notification]) -> Sequence[SinkError]:
        self.rounds += 1
        raise REFUSED


async def test_nothing_to_say_again_is_no_sign_of_life(tmp_path: Path) -> None:
    """While nothing was ever delivered a round asks nothing, and so ends no trouble."""
    async with rig(tmp_path, peers := Peers("peers")) as it:
        it.view.sink_troubles["peers"] = "connection refused"
        await Restating(peers, it.store, it.clock, it.reporting).step(it.clock.now())
        assert (peers.rounds, list(it.view.sink_troubles)) == (0, ["peers"])
