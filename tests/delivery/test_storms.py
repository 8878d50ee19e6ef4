"""Five hundred Deployments break at once, in a Slack that limits its rates as the real one does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.delivery.rig import rig
from tests.delivery.test_slack import bot, incoming
from tests.deployments import ZERO
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
