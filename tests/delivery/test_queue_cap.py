"""A queue that fills is told, shortened where that tells nobody less, and never loses a transition."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.controlplane.receivers import eventually
from tests.controlplane.watcher_process import WatcherProcess
from tests.delivery.rig import Recording, Rig, rig
from tests.deployments import ZERO
from tests.outside import outside
from watcher.core.delivery import DeliveryState, Part
from watcher.core.ledger import Finding, Verification
from watcher.core.outbox import Choice
from watcher.queue_cap import QueueCap
from watcher.sinks.http import Sender
from watcher.sinks.slack import SlackBot
from watcher.stores.database import reading
from watcher.stores.ledger import followed, kept
from watcher.testing.clock import ManualClock
from watcher.testing.objects import deployment
from watcher.testing.slack import CHANNEL, FakeSlack

CAP = 100
NAMES = [f"web-{number}" for number in range(10)]
LATER = [f"new-{number}" for number in range(20)]


class Slack(SlackBot):
    """A real one on real sockets, as fast as it can."""

    def __init__(self, slack: FakeSlack, clock: ManualClock) -> None:
        super().__init__(
            "oncall", Sender(clock), token=lambda: slack.token, channel=CHANNEL,
            api_url=slack.api_url,
        )  # fmt: skip
        self.traits = replace(self.traits, rate=0, max_age=timedelta(days=1))


@contextmanager
def dead(slack: FakeSlack) -> Iterator[None]:
    slack.channels[CHANNEL] = "is_archived"
    yield
    slack.channels[CHANNEL] = ""


def cap_of(it: Rig) -> QueueCap:
    return QueueCap(it.audiences, it.store, it.clock, it.reporting)


async def depth(it: Rig) -> int:
    return sum(count for _, _, count, _ in await it.store.queue())


async def change_all(it: Rig, number: int) -> None:
    for name in NAMES:
        await it.changes(name, message=f"change {number}")


def told_of_queue(hook: Recording) -> list[str]:
    queue = [one.event for one in hook.sent if one.event.type.startswith("queue.")]
    return [f"{event.type} {event.severity}" for event in queue]


def verify(folder: Path, now: datetime) -> list[Finding]:
    with reading(f"sqlite:///{folder / 'watcher.db'}") as (db, _):
        check = Verification(followed(db), now, ZERO - timedelta(days=1), alive=True)
        return list(check.verify(kept(db)))


async def superseded(it: Rig) -> list[Part]:
    rows = await it.rows("oncall")
    return [r.delivery.part for r in rows if r.delivery.state is DeliveryState.SUPERSEDED]


async def test_slack_is_dead_and_the_queue_fills(tmp_path: Path) -> None:
    """Row 74: told at 80 %; at the cap edits go, then untold outages become a line; transitions never."""
    clock, hook = ManualClock(ZERO), Recording("hook")
    async with (
        FakeSlack(clock) as slack,
        rig(tmp_path, Slack(slack, clock), hook, clock=clock) as it,
    ):
        cap = cap_of(it)
        await it.opens(*NAMES)
        await it.passes(30)
        with dead(slack):
            for number in range(1, 5):
                assert told_of_queue(hook) == []
                await change_all(it, number)
                await cap.check(CAP)
                await it.passes(1)
            assert told_of_queue(hook) == ["queue.filling warning"]
            assert await superseded(it) == [], "there is room"

            await change_all(it, 5)
            await it.passes(600)
            assert await depth(it) >= CAP
            await cap.check(CAP)
            assert await superseded(it) == [Part.EDIT] * 4 * 10, "each has its newest"
            assert len(it.lines("notification.superseded")) == 40
            assert verify(tmp_path, clock.now()) == []
            await it.passes(1)
            assert told_of_queue(hook)[1:] == ["queue.restored warning"]

            await it.opens(*LATER)
            await it.ends(*LATER)
            await it.passes(600)
            await cap.check(CAP)
            rows = [r for r in await it.rows("oncall") if r.event.subject.name in LATER]
            left = [r.delivery.part for r in rows if r.delivery.state != "superseded"]
            assert left == [Part.POST] * 20, "each is one line"

            for number in range(6, 10):
                await change_all(it, number)
                await it.passes(600)
                await cap.check(CAP)
            assert await depth(it) > CAP, "what has to be told is kept, above the cap too"
            assert told_of_queue(hook)[2:] == ["queue.filling warning", "queue.filling critical"]
            assert verify(tmp_path, clock.now()) == []
        await it.passes(3600)
        await cap.check(CAP)
        await it.passes(60)
        assert await depth(it) == 0
        assert told_of_queue(hook)[4:] == ["queue.restored critical"]
        assert {row.delivery.state for row in await it.rows("oncall")} == {
            "delivered",
            "superseded",
        }
        assert verify(tmp_path, clock.now()) == []
    posts = [post for post in slack.messages if "shop/web-" in post.text]
    assert len(posts) == 10
    for post in posts:
        assert "change 9" in post.text
        changes = [f"change {n}" for n in range(1, 10)]
        assert all(word in reply.text for word, reply in zip(changes, post.replies, strict=True))
    late = [post.text for post in slack.messages if "shop/new-" in post.text]
    assert len(late) == 20
    assert all("Recovered" in text and "nobody was told while it lasted" in text for text in late)
    events = [n for n in hook.sent if n.event.subject.name in (*NAMES, *LATER)]
    assert len(events) == 10 * 10 + 2 * 20, "a machine gets each"


async def test_what_it_says(tmp_path: Path) -> None:
    """How many wait, for whom most of them, what the cap is and what happens at it."""
    hook = Recording("hook")
    async with rig(tmp_path, hook) as it:
        await it.opens(*(f"web-{number}" for number in range(CAP)))
        await cap_of(it).check(CAP)
        await it.passes(5)
        await cap_of(it).check(CAP)
        await it.passes(5)
    filling, restored = (n.message for n in hook.sent if not n.event.subject.cluster)
    assert filling.text == (
        "Filling: the watcher's queue since 00:00 UTC (0 s). 100 deliveries wait, 100 of them for "
        "hook, and store.queue_cap is 100. Nothing is dropped, the record grows and the dead-man "
        "ping stays away. Start with: watcher outbox list"
    )
    assert restored.text == (
        "Restored: the watcher's queue. It was filling 00:00:00\N{EN DASH}00:00:05 UTC (5 s) and "
        "has room again."
    )


class Counted:
    """A store that counts how often it was asked to compact."""

    def __init__(self, rig: Rig) -> None:
        self._store = rig.store
        self.asked = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._store, name)

    async def compact(
        self, sink: str, now: datetime, part: Part, after: str = ""
    ) -> tuple[Sequence[Choice], str]:
        self.asked += 1
        return await self._store.compact(sink, now, part, after)


async def test_what_cannot_be_shortened_is_not_searched_again(tmp_path: Path) -> None:
    """Above the cap the queue is searched when it has grown, not at each look."""
    chat = Recording("chat", chat=True, threads=True)
    async with rig(tmp_path, chat) as it:
        store = Counted(it)
        cap = QueueCap(it.audiences, store, it.clock, it.reporting)
        await it.opens(*(f"web-{number}" for number in range(CAP)))
        for _ in range(3):
            await cap.check(CAP)
        assert store.asked == 2
        await it.opens(*(f"more-{number}" for number in range(5)))
        await cap.check(CAP)
        assert store.asked == 4


async def test_a_restart_remembers_that_it_told(tmp_path: Path) -> None:
    """The next process tells nothing twice, and the end of what the former one told."""
    hook = Recording("hook")
    async with rig(tmp_path, hook) as it:
        await it.opens(*(f"web-{number}" for number in range(90)))
        await cap_of(it).check(CAP)
    async with rig(tmp_path, hook, clock=it.clock) as it:
        await cap_of(it).check(CAP)
        await it.passes(5)
        await cap_of(it).check(CAP)
        await it.passes(5)
    assert told_of_queue(hook) == ["queue.filling warning", "queue.restored warning"]


def test_a_process_at_its_cap(tmp_path: Path) -> None:
    """Row 74: the running watcher tells it through the sink that works, and pings no more."""
    with outside() as world:
        for number in range(6):
            world.do(lambda n=number: world.server.apply(deployment("shop", f"web-{n}")))  # type: ignore[misc]
        config = world.config(tmp_path)
        config["store"] = {"url": f"sqlite:///{tmp_path / 'watcher.db'}"}
        for name in ("dead-one", "dead-two"):
            config["sinks"].append(
                {"name": name, "type": "webhook", "url": "http://127.0.0.1:1/closed"}
            )
        config["dead_man"] = {"url": world.url, "interval": "1s"}
        watcher = WatcherProcess(tmp_path, config)
        try:
            watcher.start_fresh()
            for number in range(6):
                world.set_ready(f"web-{number}", 0)
            # One of all that wait asks whether somebody is there, so that most are never tried.
            eventually(
                lambda: (
                    len([x for x in watcher.lines("notification.queued") if x["sink"] != "hook"])
                    >= 12
                )
            )
            watcher.kill()
            watcher.config["store"] |= {"queue_cap": 10}
            watcher.start()
            eventually(lambda: "queue.filling" in world.told, 10, lambda: world.told)
            [withheld] = eventually(
                lambda: (
                    [e["reason"] for e in watcher.audit if e["event"] == "dead_man.withheld"]
                    or None
                ),
                15,
            )
            assert withheld == "the queue is full"
            assert "watcher_queue_fill_ratio 1." in watcher.text("/metrics")
        finally:
            watcher.stop()
