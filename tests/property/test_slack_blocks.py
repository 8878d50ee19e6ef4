"""Whatever a cluster says, Slack takes the message and nothing in it takes effect."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events import BEGAN, event, notification
from watcher.core.events import Edge
from watcher.core.message import Fact, Message
from watcher.core.model import Json, Subject
from watcher.sinks import slack_blocks
from watcher.sinks.slack_blocks import clip, clip_middle, units
from watcher.testing.slack_channel import Post, refused_content

NASTY = (
    "<!channel>", "<@U123>", "<!subteam^S1>", "<https://evil.example|ok>", "<#C1>", "*x*", "```",
    ":fire:", "&amp;", "login.evil.com", "https://evil.example", "\x00", "\x1b[31m", "\u202e",
    "\ud800", "😀", "e\u0301", "שלום", "\n", "<!date^1^{time}|x>", "@here", "`",
)  # fmt: skip
pieces = st.sampled_from(NASTY)
text = st.lists(pieces | st.text(max_size=20), max_size=8).map("".join) | st.builds(
    lambda piece, times: piece * times, pieces, st.sampled_from([0, 50, 400])
)
messages = st.builds(
    Message,
    state=text,
    symbol=st.sampled_from(["🔴", "✅", ""]),
    title=text,
    text=text,
    facts=st.lists(st.builds(Fact, text, text), max_size=11).map(tuple),
    why=text,
    command=text,
    notes=st.lists(text, max_size=5).map(tuple),
    line=text,
    lines=st.lists(text, max_size=20).map(tuple),
    since=st.none() | st.integers(0, 10**9).map(lambda s: BEGAN + timedelta(seconds=s)),
)  # fmt: skip


def taken(payload: Json) -> Post:
    """What Slack makes of a payload that it must not refuse."""
    assert refused_content({"channel": "C", **payload}) == ""
    return Post("C", "1.0", BEGAN, payload)


def forms(message: Message) -> list[Json]:
    """Everything that a message can be sent as."""
    short = slack_blocks.summary(message)
    pages = slack_blocks.pages(message)
    return [
        slack_blocks.render(short),
        slack_blocks.plain(short),
        *(slack_blocks.render(page, brief=number > 0) for number, page in enumerate(pages)),
        *(slack_blocks.render(p, brief=True) for p in slack_blocks.pages(message, slack_blocks.LIST_LINES)),
    ]  # fmt: skip


@given(messages)
def test_any_message_is_within_the_limits_and_inert(message: Message) -> None:
    """Rows 53, 55, 56, 57: no limit is exceeded, nobody is mentioned, nothing is a link, and there always is a text."""
    for payload in forms(message):
        post = taken(payload)
        assert post.text
        assert post.effects == []


@pytest.mark.parametrize("piece", ["x", "<", "😀", "&😀"])
def test_the_largest_message_is_within_the_limits(piece: str) -> None:
    """With everything too long and too much at once all blocks together stay under 10,000."""
    long = piece * 9000
    message = Message(
        long, "🔴", long, long, (Fact(long, long),) * 30, long, long, (long,) * 30, long,
        (long,) * 100, BEGAN,
    )  # fmt: skip
    for payload in forms(message):
        post = taken(payload)
        assert units(post.shown) <= 10_000
        assert units(post.text) <= 4000


@given(text, text, text)
def test_any_event_can_be_told(name: str, reason: str, message: str) -> None:
    """From the event to Slack's JSON nothing raises, whatever the cluster's strings hold."""
    told = event(Edge.DEGRADED, subject=Subject("c", name, name), reason=reason, message=message)
    for payload in forms(notification(told).message):
        taken(payload)


@given(st.lists(st.text("abcdefgh-.", min_size=1, max_size=60), min_size=1, max_size=600))
def test_every_line_of_a_long_list_is_on_some_page(names: list[str]) -> None:
    """A list that does not fit one message goes on in the next: no name is lost, in order."""
    message = notification(event(Edge.DEGRADED)).message
    long = Message("s", "", "t", "x", lines=tuple(names))
    pages = slack_blocks.pages(long, slack_blocks.LIST_LINES)
    assert [line for page in pages for line in page.lines] == names
    assert slack_blocks.pages(message) == [message]


@given(text, st.integers(40, 300))
def test_clipping_keeps_to_the_limit(value: str, limit: int) -> None:
    """A clipped text is within its limit, says so, and is no half of anything."""
    for cut in (clip(value, limit), clip_middle(value, limit)):
        assert units(cut) <= limit
        assert cut == value or "…" in cut


def test_the_literal_text_of_row_53_is_shown() -> None:
    """Markup in a condition message is displayed letter by letter."""
    hostile = "<!channel> <@U1> <https://evil|ok> *x* ``` :fire: &amp;"
    post = taken(slack_blocks.render(notification(event(Edge.DEGRADED, message=hostile)).message))
    assert hostile in post.shown
    assert hostile in post.text


def test_both_ends_of_a_long_name_stay() -> None:
    """Row 54: the header of a name of 253 characters keeps its beginning and its end; the text has it all."""
    name = "login.evil.com-" + "x" * 200 + "-the-end"
    told = event(Edge.DEGRADED, subject=Subject("c", "n" * 63, name))
    post = taken(slack_blocks.render(notification(told).message))
    header = post.shown.split("\n")[0]
    assert len(header) <= 150
    assert header.startswith("🔴 Unavailable: nnn")
    assert header.endswith("-the-end in c")
    assert name in post.text
    assert post.effects == []


@pytest.mark.parametrize(
    "payload",
    [
        {"text": "<!channel>"},
        {"text": "<@U1>"},
        {"text": "<https://evil|ok>"},
        {"text": "https://evil.example", "parse": "full"},
        {"text": "login.evil.com"},
        {"blocks": [{"type": "header", "text": {"type": "plain_text", "text": ":fire:"}}]},
        {
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": "https://evil.example"}}
            ]
        },
    ],
    ids=str,
)
def test_the_fake_would_see_an_effect(payload: Json) -> None:
    """The parser that the other tests trust does find what is not made inert."""
    post = Post("C", "1.0", BEGAN, payload)
    assert post.effects
