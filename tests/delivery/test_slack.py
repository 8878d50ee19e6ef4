"""What on-call sees in Slack when messages are lost, deleted, refused or told twice."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from msgspec.structs import replace

from tests.delivery.rig import WARNING, Rig, rig
from tests.deployments import ZERO
from watcher.sinks.http import Sender
from watcher.sinks.slack import SlackBot, SlackWebhook
from watcher.testing.clock import ManualClock
from watcher.testing.slack import CHANNEL, FakeSlack, Fault
from watcher.testing.slack_channel import Post

GROUP, USER = "S0123456789", "U0123456789"


class ReadableSlack(FakeSlack):
    """One that lets the app read its history, if the app has the scope."""

    scope = True

    async def _api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        if method not in ("conversations.history", "conversations.replies"):
            return await super()._api(request)
        asked = {key: str(value) for key, value in (await request.post()).items()}
        self.requests.append((request.path, dict(asked)))
        if not self.scope:
            return web.json_response({"ok": False, "error": "missing_scope"})
        parent = self.find(asked["ts"]) if method.endswith("replies") else None
        found = self.messages if parent is None else [parent, *parent.replies]
        recent = [post for post in found if float(post.ts) >= float(asked["oldest"])]
        recent = recent[::-1] if parent is None else recent  # a channel is read from its end
        start, size = int(asked.get("cursor", "0")), min(int(asked["limit"]), 100)
        more = str(start + size) if len(recent) > start + size else ""
        shown = [_shown(post) for post in recent[start : start + size]]
        return web.json_response(
            {"ok": True, "messages": shown, "response_metadata": {"next_cursor": more}}
        )


def _shown(post: Post) -> dict[str, object]:
    marks = post.payload.get("metadata")
    return {"ts": post.ts, "text": post.text} | ({"metadata": marks} if marks else {})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO)


@pytest.fixture
async def slack(clock: ManualClock) -> AsyncIterator[ReadableSlack]:
    async with ReadableSlack(clock) as made:
        yield made


def bot(slack: FakeSlack, *mention: str, name: str = "oncall", channel: str = CHANNEL) -> SlackBot:
    return SlackBot(
        name, Sender(slack.clock), token=lambda: slack.token, channel=channel,
        api_url=slack.api_url, mention=mention,
    )  # fmt: skip


def incoming(slack: FakeSlack, *mention: str) -> SlackWebhook:
    sender = Sender(slack.clock)
    return SlackWebhook("oncall", sender, url=lambda: slack.webhook_url, mention=mention)


def calls(slack: FakeSlack) -> list[str]:
    """Who was called, over all messages, replies and edits."""
    posts = [one for post in slack.messages for one in (post, *post.replies)]
    every = [replace(one, payload=form) for one in posts for form in (*one.edits, one.payload)]
    return [effect for one in every for effect in one.effects]


LOST = Fault(reset=True, accepted=True, path="chat.postMessage")


async def test_an_answer_that_was_lost_makes_no_double(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Row 20: the message that Slack took before the connection broke is found and adopted."""
    slack.faults.append(LOST)
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens("web")
        await it.passes(10)
        assert [line["ambiguous"] for line in it.lines("notification.deferred")] == [True]
        assert len(slack.messages) == 1
        slack.faults.append(LOST)
        await it.ends("web")
        await it.passes(10)
    (message,) = slack.messages
    assert "Recovered" in message.shown
    assert len(message.replies) == 1, "nor is the reply there twice"


@pytest.mark.parametrize(("others", "messages"), [(250, 1), (1950, 1), (2100, 2)])
async def test_it_is_found_in_a_busy_channel(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock, others: int, messages: int
) -> None:
    """Page by page, however long they are; only what is buried under thousands may come twice."""
    slack.faults.append(LOST)
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens("web")
        await it.passes(0.5)
        for number in range(others):
            slack._post({"channel": CHANNEL, "text": f"{number} " + "x" * 1500})
        await it.passes(10)
        assert set((await it.states("oncall")).values()) == {"delivered"}
    told = [post for post in slack.messages if "metadata" in post.payload]
    assert len(told) == messages
    assert len({post.payload["client_msg_id"] for post in told}) == 1


async def test_without_the_right_to_look_a_double_is_recognisable(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """A bot that may not read the channel posts again, under the same id."""
    slack.scope = False
    slack.faults.append(LOST)
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens("web")
        await it.passes(10)
        assert set((await it.states("oncall")).values()) == {"delivered"}
    first, second = slack.messages
    assert first.payload["metadata"] == second.payload["metadata"]
    assert first.payload["client_msg_id"] == second.payload["client_msg_id"]


async def test_a_long_thread_that_was_cut_short_goes_on_after_a_restart(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Pages that have arrived are counted in the thread, and not sent again."""
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens(*(f"a-rather-long-name-{n:03}" for n in range(400)), storm=True)
        slack.faults += [
            Fault(path="postMessage"), Fault(path="postMessage"), Fault(path="postMessage"),
            Fault(status=504, accepted=True, path="postMessage"),
        ]  # fmt: skip
        await it.passes(5)
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.passes(30)
    (post,) = slack.messages
    titles = [reply.shown.split("\n")[0] for reply in post.replies]
    assert len(titles) == len(set(titles)) > 3
    listed = "\n".join(reply.shown for reply in post.replies)
    assert [n for n in range(400) if f"a-rather-long-name-{n:03}:" not in listed] == []


async def test_somebody_is_called_once(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Row 66: at the opening; not with twenty edits, a deleted message, a restart or the end."""
    sink = bot(slack, GROUP, USER)
    async with rig(tmp_path, sink, clock=clock) as it:
        await it.opens("web")
        await it.passes()
        once = [f"!subteam^{GROUP}", f"@{USER}"]
        assert calls(slack) == once
        for number in range(20):
            await it.changes("web", message=f"0 of 3 replicas available; attempt {number}")
            await it.passes(2)
        assert len(slack.messages[0].edits) == 20
        await it.changes("web", severity=WARNING)
        await it.changes("web")
        await it.passes(5)
        assert calls(slack) == once
        slack.delete(slack.messages[0].ts)
        await it.changes("web", message="0 of 3 replicas available; again")
        await it.passes(5)
        assert calls(slack) == [], "the message anew calls nobody"
    async with rig(tmp_path, bot(slack, GROUP, USER), clock=clock) as it:
        await it.passes(5)
        assert calls(slack) == []


async def test_somebody_is_called_when_it_becomes_critical(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """What opens as a warning calls nobody before it is worse, and then once."""
    async with rig(tmp_path, bot(slack, "here"), clock=clock) as it:
        await it.opens("web", severity=WARNING)
        await it.passes()
        assert calls(slack) == []
        for severity in (None, WARNING, None):
            await it.changes("web", **({"severity": severity} if severity else {}))
            await it.passes(2)
        assert calls(slack) == ["!here"]
        await it.ends("web")
        await it.passes(2)
    assert calls(slack) == ["!here"]


async def test_a_storm_calls_once(tmp_path: Path, slack: ReadableSlack, clock: ManualClock) -> None:
    """Eleven critical Deployments in a digest are one call, and none for those that join."""
    async with rig(tmp_path, bot(slack, "channel"), clock=clock) as it:
        await it.opens(*(f"web-{n}" for n in range(11)), storm=True)
        await it.passes(5)
        await it.opens("late", storm=True)
        await it.passes(400)
        assert calls(slack) == ["!channel"]


async def test_an_incoming_webhook_calls_once(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Also where every piece of news is a message of its own."""
    async with rig(tmp_path, incoming(slack, "here"), clock=clock) as it:
        await it.opens("web")
        await it.passes(2)
        for severity in (WARNING, None):
            await it.changes("web", **({"severity": severity} if severity else {}))
            await it.passes(2)
        await it.ends("web")
        await it.passes(2)
    assert len(slack.messages) == 3
    assert calls(slack) == ["!here"]


async def test_a_plain_message_calls_too(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Rows 9: refused with blocks it is sent as text, which calls and tells the same."""
    slack.faults.append(Fault(body='{"ok":false,"error":"invalid_blocks"}', status=200))
    async with rig(tmp_path, bot(slack, GROUP), clock=clock) as it:
        await it.opens("web")
        await it.passes(2)
        assert set((await it.states("oncall")).values()) == {"delivered"}
    (post,) = slack.messages
    assert post.blocks == []
    assert calls(slack) == [f"!subteam^{GROUP}"]
    assert "Unavailable: Deployment shop/web in prod" in post.text


@pytest.mark.parametrize("how", ["deleted", "edit window"])
async def test_a_message_that_cannot_be_edited_is_continued(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock, how: str
) -> None:
    """Rows 64, 65: a new message says that it continues an earlier one, and is followed from there."""
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens("web")
        await it.passes(60)
        if how == "deleted":
            slack.delete(slack.messages[0].ts)
        else:
            slack.edit_window = ZERO - ZERO
        await it.changes("web", message="0 of 3 replicas available; worse")
        await it.passes(5)
        slack.edit_window = None
        newest = slack.messages[-1]
        assert "continues an earlier message" in newest.shown
        await it.ends("web")
        await it.passes(5)
    assert slack.messages[-1] is newest
    assert "Recovered" in newest.shown
    assert newest.replies


@pytest.mark.parametrize(
    "state", ["channel_not_found", "is_archived", "not_in_channel", "restricted_action_read_only"]
)
async def test_a_closed_channel_parks_and_others_flow(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock, state: str
) -> None:
    """Rows 12, 65: nothing is lost while it is closed, and the other channel tells of it."""
    slack.channels["C0000000002"] = ""
    slack.channels[CHANNEL] = state
    other = bot(slack, name="other", channel="C0000000002")
    async with rig(tmp_path, bot(slack), other, clock=clock) as it:
        await it.opens("web")
        await it.passes(5)
        assert [post.channel for post in slack.messages] == ["C0000000002"] * 2
        assert "Failing: the watcher's sink oncall" in slack.messages[1].shown
        slack.channels[CHANNEL] = ""
        await it.passes(600)
        assert [post.text[:11] for post in slack.messages if post.channel == CHANNEL] == [
            "Unavailable"
        ]
        assert "Restored: the watcher's sink oncall" in slack.messages[1].shown


async def test_the_story_of_an_outage_of_slack(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Row 39: opened, worse, better and over while Slack was down is one post that says it all."""

    async def story(it: Rig) -> None:
        await it.opens("web", severity=WARNING)
        await it.opens("api")
        await it.passes(60)
        await it.changes("web")
        await it.changes("web", severity=WARNING)
        await it.passes(60)
        await it.ends("web")
        await it.passes(60)

    slack.faults += [Fault(status=503) for _ in range(100)]
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await story(it)
        slack.faults.clear()
        await it.passes(35)
        states = await it.states("oncall")
    api, web = sorted(slack.messages, key=lambda post: post.text)[::-1]
    assert "since 00:00 UTC" in api.text
    assert "Delayed" in api.shown
    assert "http 503" in api.shown.lower()
    assert web.text.startswith("Recovered: Deployment shop/web in prod was unavailable 00:00")
    assert "Sent 3 min late, nobody was told while it lasted" in web.shown
    assert web.replies == []
    assert sorted(states.values()).count("superseded") == len(states) - 2


async def test_a_restart_edits_the_same_message(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Row 27: a new process on the same volume knows the message, and no second one appears."""
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.opens("web")
        await it.passes(5)
        await it.ends("web")
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        await it.passes(5)
    (message,) = slack.messages
    assert message.edits
    assert "Recovered" in message.shown


async def test_what_opens_again_is_a_new_message(
    tmp_path: Path, slack: ReadableSlack, clock: ManualClock
) -> None:
    """Row 42: after its end an incident is over; the next one has its own message and id."""
    async with rig(tmp_path, bot(slack), clock=clock) as it:
        for _ in range(2):
            await it.opens("web")
            await it.passes(60)
            await it.ends("web")
            await it.passes(60)
    first, second = slack.messages
    assert first.shown.split("incident ")[1] != second.shown.split("incident ")[1]
    assert all("Recovered" in post.shown for post in slack.messages)
