"""What a sink gets next, a case a line: rows in, what is sent and what it replaces out."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.deliveries import NOW, delivery, event
from watcher.core.delivery import Part
from watcher.core.events import Edge
from watcher.core.outbox import Choice, Row, choose

EDGES = {"open": Edge.DEGRADED, "news": Edge.UPDATED, "end": Edge.RECOVERED}


def rows(text: str) -> list[Row]:
    """`post1:open` is one unsent delivery: `+30` due in 30 s, `~` tried, `?` ambiguous, `*` digest."""
    found = []
    for word in text.split():
        name, _, edge = word.rstrip("~?*").partition(":")
        edge, _, seconds = edge.partition("+")
        part, sequence = Part(name[:-1]), int(name[-1])
        one = event(1, sequence, EDGES[edge])
        due = NOW + timedelta(seconds=int(seconds or 0))
        flags = {"digest": "*" in word, "tried": "~" in word, "ambiguous": "?" in word}
        found.append(Row(delivery(one, "chat", part, due), one.edge, **flags))
    return found


def named(choice: Choice) -> str:
    """`edit3 edit2` sends the first in place of the others; `in 30` waits."""
    if choice.due > NOW:
        return f"in {(choice.due - NOW).total_seconds():.0f}"
    return " ".join(f"{one.part}{one.sequence}" for one in (choice.send, *choice.supersede))


@pytest.mark.parametrize(
    ("waiting", "chosen"),
    [
        pytest.param("event2:news event1:open", "event1", id="machines get every event, in order"),
        pytest.param("event1:open+9~ event2:end", "in 9", id="and none before its predecessor"),
        pytest.param("event1:open+9~ edit2:end", "in 9", id="nor where it became a chat since"),
        pytest.param("event1:open post2:end", "event1", id="which edits nothing"),
        pytest.param("edit2:news reply2:news event3:end", "edit2", id="or is a chat no more"),
        pytest.param("post1:open", "post1", id="an opening"),
        pytest.param("edit2:news reply2:news", "reply2", id="a reply notifies, so it goes first"),
        pytest.param("edit2:news", "edit2", id="then the edit"),
        pytest.param("reply2:news reply3:end", "reply2", id="replies in order"),
        pytest.param("edit2:news edit3:end", "edit3 edit2", id="edits coalesce to the newest"),
        pytest.param("edit2:news+9~ reply3:end", "reply3", id="a slow edit holds no reply"),
        pytest.param("reply2:news+9~ edit2:news", "edit2", id="nor a slow reply an edit"),
        pytest.param("edit2:news+9~ edit3:end", "in 9", id="news do not shorten a backoff"),
        pytest.param(
            "edit2:news+9 edit3:end", "edit3 edit2", id="but need not wait to be gathered"
        ),
        pytest.param(
            "post1:open edit2:news reply2:news",
            "post2 post1 edit2 reply2",
            id="untold: as it is now",
        ),
        pytest.param(
            "post1:open edit2:news edit3:end reply3:end",
            "post3 post1 edit2 edit3 reply3",
            id="untold and over: one line",
        ),
        pytest.param("post1:open+9~ edit2:end", "in 9", id="its backoff holds for that too"),
        pytest.param("post1:open? edit2:end reply2:end", "post1", id="maybe told: the same again"),
        pytest.param("post1:open post2:news", "post1", id="separate posts: the opening"),
        pytest.param(
            "post1:open* post2:news*", "post2 post1", id="separate posts: all of a digest"
        ),
        pytest.param("post2:news post3:news", "post3 post2", id="separate posts: the newest news"),
        pytest.param(
            "post1:open post2:news post3:end", "post3 post1 post2", id="separate posts: over"
        ),
        pytest.param("post2:news post3:end", "post3 post2", id="separate posts: news, and over"),
        pytest.param("post1:open? post2:end", "post1", id="separate posts: maybe told"),
        pytest.param(
            "reply1:open* reply2:news* edit2:news*",
            "reply2 reply1",
            id="a digest's names in one reply",
        ),
        pytest.param("reply1:open*? reply2:news*", "reply1", id="unless one may have arrived"),
        pytest.param(
            "post1:open* reply1:open* edit2:end* reply2:end*",
            "post2 post1 edit2",
            id="a digest keeps its replies: they have the names",
        ),
        pytest.param("post1:open* reply1:open*", "post1", id="a digest's opening"),
    ],
)
def test_choice(waiting: str, chosen: str) -> None:
    """Each sink gets what it still needs, and no more."""
    assert named(choose(rows(waiting), NOW)) == chosen


@pytest.mark.parametrize(
    ("waiting", "chosen"),
    [
        pytest.param("edit2:news", "in 60", id="edits wait"),
        pytest.param("edit2:news reply2:news", "reply2", id="replies do not"),
        pytest.param("post1:open", "post1", id="nor do posts"),
    ],
)
def test_a_limit_on_edits(waiting: str, chosen: str) -> None:
    """A sink that has run into its limit on edits may still be told openings and ends."""
    assert named(choose(rows(waiting), NOW, NOW + timedelta(seconds=60))) == chosen


def test_a_replacement_is_a_delivery_of_its_event() -> None:
    """The post that takes the place of others has an id of its own, the same whenever it is made."""
    waiting = rows("post1:open edit2:end reply2:end")
    chosen = choose(waiting, NOW)
    assert chosen.send == replace(waiting[1].delivery, part=Part.POST)
    assert chosen.send.id not in {row.delivery.id for row in waiting}
