"""Five hundred Deployments break at once, in a Slack that limits its rates as the real one does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.delivery.rig import WARNING, rig
from tests.delivery.test_slack import bot, incoming
from tests.deployments import ZERO
from watcher.core.events import Edge
from watcher.ports import Sink
from watcher.sinks.slack_blocks import units
from watcher.testing.clock import ManualClock
from watcher.testing.slack import FakeSlack

NAMES = [f"service-number-{n:03}" for n in range(500)]


@pytest.mark.parametrize("make", [bot, incoming], ids=["bot", "incoming webhook"])
async def test_five_hundred_at_once(tmp_path: Path, make: Callable[[FakeSlack], Sink]) -> None:
    """At most three messages in the channel within two minutes, and every name to be found."""
    clock = ManualClock(ZERO)
    async with FakeSlack(clock, rate=1.0) as slack:
        sink = make(slack)
        async with rig(tmp_path, sink, clock=clock) as it:
            for start in range(0, 500, 50):  # as the watch delivers them, over a second
                await it.opens(*NAMES[start : start + 50], storm=True)
                await it.passes(0.1)
            await it.passes(119)
            assert len(slack.messages) <= 3
            assert len(it.lines("notification.deferred")) <= 1, (
                "a long thread may have to wait once"
            )
            posts = [one for post in slack.messages for one in (post, *post.replies)]
            told = "\n".join(post.shown for post in posts)
            assert [name for name in NAMES if name not in told] == []
            assert "500 Deployments degraded in prod" in told
            await it.ends(*NAMES)
            await it.passes(300)
            last = slack.messages[0] if make is bot else slack.messages[-1]
            assert "500 recovered" in last.text
            assert set((await it.states("oncall")).values()) <= {
                "delivered",
                "superseded",
                "grouped",
            }
    assert all(units(post.text) <= 4000 for post in posts)


async def test_a_storm_that_grows_and_heals_in_an_incoming_webhook(tmp_path: Path) -> None:
    """Two critical ones join: they are told by name, and nothing again. What heals, ends and stays
    is told apart, in what is shown and in the text alone."""
    clock = ManualClock(ZERO)
    async with (
        FakeSlack(clock, rate=1.0) as slack,
        rig(tmp_path, incoming(slack, "here"), clock=clock) as it,
    ):
        await it.opens(*NAMES, severity=WARNING, storm=True)
        await it.passes(30)
        opening = [post.shown for post in slack.messages]
        assert [name for name in NAMES if name not in "".join(opening)] == []
        await it.opens("cart", "checkout", storm=True)
        await it.passes(90)
        assert len(slack.messages) <= 3, "within two minutes"
        joined = slack.messages[-1]
        assert joined.effects == ["!here"]
        assert joined.shown.startswith("🔴 502 Deployments degraded in prod: 502 unavailable\n")
        assert "Unavailable: shop/cart, shop/checkout. " in joined.text
        assert "service-number" not in joined.shown + joined.text
        await it.ends(*NAMES[:200])
        await it.ends(*NAMES[200:210], edge=Edge.CLOSED)
        await it.passes(300)
        healed = slack.messages[len(opening) + 1 :]
        assert healed[0].shown.startswith(
            "🔴 502 Deployments degraded in prod: 292 unavailable, 200 recovered, 10 closed\n"
        )
        assert "Closed (is no longer followed): shop/service-number-200, " in healed[0].text
        assert "Recovered: shop/service-number-000, " in healed[0].text
        rows = [
            row.removeprefix("• ").partition(" in shop: ")
            for post in healed
            for row in post.shown.splitlines()
            if " in shop: " in row
        ]
        briefly = {state: "".join(n for s, _, n in rows if s == state) for state, _, _ in rows}
        assert briefly.keys() == {"Closed (is no longer followed)", "Recovered"}
        assert briefly["Closed (is no longer followed)"].split(", ") == NAMES[205:210]
        assert NAMES[0] in briefly["Recovered"]
        shown = "".join(post.shown for post in healed)
        assert [name for name in NAMES[:210] if name not in shown] == []
        assert not any(name in shown for name in NAMES[210:])
