"""The stream: every event once, whatever happens to the bytes and the connection (W8-W25)."""

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from tests.integration.conftest import asked, opened, spacing, watching
from watcher.cluster.transport import Cut, Lost, Silent, Withheld, keepalive_socket
from watcher.errors import Expired, Forbidden, Garbled, Protocol, Rewound, Unreachable
from watcher.ports import Applied, Broken, Deleted, Listed, Opened
from watcher.testing.apiserver import FakeApiServer, Fault, event, status
from watcher.testing.clock import ManualClock
from watcher.testing.objects import deployment


def version(server, name):
    return server.get("shop", name)["metadata"]["resourceVersion"]


async def test_starts_at_the_version_of_the_list(server, watch):
    """W8: from the list's version, with bookmarks, for 240 to 300 s."""
    await opened(await watch(uniform=lambda low, high: (low + high) / 2))
    query = asked(server, "watch")[0].query
    assert query == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "270",
        "resourceVersion": str(server.version),
    }


async def test_shows_what_happens(server, watch):
    """Added, modified and deleted Deployments arrive as they are."""
    watched = await opened(await watch())
    server.apply(deployment("shop", "d"))
    server.set_ready("shop", "a", 0)
    server.delete("shop", "b")
    await watched.until(Deleted)
    assert set(watched.state) == {"a", "c", "d"}
    assert watched.state["a"].available == 0


async def test_goes_on_from_the_last_event(server, watch, clock):
    """W9, W10: after an orderly end it watches on from the last event, without a list."""
    watched = await opened(await watch())
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    at = server.version
    clock.forward(60)
    server.end_streams()
    assert (await watched.until(Broken)).error is None
    await watched.until(Opened)
    assert asked(server, "watch")[-1].query["resourceVersion"] == str(at)
    assert len(asked(server, "list")) == 1
    assert clock.waits[-1] == 0.3


async def test_goes_on_from_a_bookmark(server, watch, clock):
    """W9: a bookmark moves the version on although nothing happened here."""
    watched = await opened(await watch(scopes=["elsewhere"]))
    server.set_ready("shop", "a", 0)
    server.bookmark()
    await server.until(lambda: server.watches == 1)
    clock.forward(60)
    server.end_streams()
    await watched.until(Opened)
    assert asked(server, "watch")[-1].query["resourceVersion"] == str(server.version)


async def test_a_pause_lies_between_two_watches(server, watch, clock):
    """W10: the pause after an orderly end is drawn between 0.1 and 0.3 s: longer ones blind."""
    watched = await opened(await watch(uniform=lambda low, high: low))
    clock.forward(60)
    server.end_streams()
    await watched.until(Opened)
    assert spacing(server, "watch") == [60.1]


async def test_streams_that_end_at_once_are_no_flood(server, watch):
    """W10, F2: a server that answers 200 and hangs up is asked ever more slowly."""
    server.streams_last = 0
    watched = await watch()
    for _ in range(4):
        broken = await watched.until(Broken)
        assert "ended at once" in str(broken.error)
    assert spacing(server, "watch")[:3] == [0.8, 1.6, 3.2]


@pytest.mark.parametrize("as_event", [True, False])
async def test_a_version_that_expired_is_never_used_again(server, watch, clock, as_event):
    """W11, F8: 410, as status or as event, makes a new list; what it leaves out is gone."""
    watched = await opened(await watch())
    server.expired_as_event = as_event
    await server.stop()
    server.delete("shop", "b")
    server.compact()
    await server.start()
    await watched.until(Broken, lambda e: isinstance(e.error, Expired))
    await opened(watched)
    assert set(watched.state) == {"a", "c"}
    versions = [seen.query["resourceVersion"] for seen in asked(server, "watch")]
    assert versions[-1] == str(server.version)
    assert versions.count(versions[-2]) == 2  # once when it was good, once to learn that it is not
    assert watched.cluster.stream("").lists == {"start": 1, "expired": 1}


async def test_endless_410_is_backed_off(server, watch):
    """W11, W14, F9: ten times 410 in a row are ten lists, each later than the one before."""
    server.faults += [Fault("watch", 410)] * 10
    await opened(await watch())
    assert spacing(server, "list") == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30, 30]


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_server_that_lags_behind_is_listed_anew(server, watch, verb):
    """W12, F13: 504 ResourceVersionTooLarge: wait as told, then list without a version."""
    too_large = status(504, "Timeout", "Too large resource version: 9, current: 8", 5)
    server.faults.append(Fault(verb, 504, msgspec.json.encode(too_large)))
    watched = await watch()
    assert isinstance((await watched.until(Broken)).error, Expired)
    await watched.until(Opened)
    assert spacing(server, "list") == [5.0]
    assert "resourceVersion" not in asked(server, "list")[-1].query


def refusal(code: int, after: int) -> bytes:
    return msgspec.json.encode(status(code, "TooManyRequests", "", after))


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        pytest.param(Fault("watch", 429, headers={"Retry-After": "7"}), 7.0, id="seconds"),
        pytest.param(Fault("watch", 503, headers={"Retry-After": "7"}), 7.0, id="on 503"),
        pytest.param(
            Fault("watch", 429, headers={"Retry-After": "Sun, 01 Mar 2026 00:00:09 GMT"}),
            9.0,
            id="a date",
        ),
        pytest.param(Fault("watch", 429, refusal(429, 5)), 5.0, id="in the body"),
        pytest.param(Fault("watch", 429, headers={"Retry-After": "0"}), 0.8, id="ours is longer"),
        pytest.param(Fault("watch", 429, headers={"Retry-After": "9999"}), 60.0, id="at most 60"),
        pytest.param(Fault("watch", 429, headers={"Retry-After": "soon"}), 0.8, id="unreadable"),
        pytest.param(
            Fault("watch", 429, headers={"Retry-After": "Sun, 01 Mar 2020 00:00:00 GMT"}),
            0.8,
            id="a date that is over",
        ),
    ],
)
async def test_waits_as_long_as_the_server_asks(server, watch, fault, wait):
    """W13, F15: Retry-After is kept, and so is our own backoff."""
    server.faults.append(fault)
    await opened(await watch())
    assert spacing(server, "watch") == [wait]


async def test_a_list_alone_forgives_nothing(server, watch):
    """W14: the backoff grows over lists that succeed, and starts anew after the first event."""
    server.faults += [Fault("watch", 500)] * 3
    watched = await opened(await watch())
    assert spacing(server, "watch") == [0.8, 1.6, 3.2]
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    server.faults.append(Fault("watch", 500))
    server.reset_connections()
    await watched.until(Broken)
    await watched.until(Broken)
    await watched.until(Opened)
    assert spacing(server, "watch")[3:] == [0.8, 1.6]


async def test_a_stream_that_lived_forgives_failures(server, watch, clock):
    """One that stood for ten seconds is no failure when it is cut off: the next comes at once."""
    server.faults += [Fault("watch", 500)] * 3
    watched = await opened(await watch())
    clock.forward(10)
    server.reset_connections()
    await watched.until(Broken, lambda e: isinstance(e.error, Cut))
    await watched.until(Opened)
    assert spacing(server, "watch") == [0.8, 1.6, 3.2, 10.3]
    clock.forward(10)
    server.faults.append(Fault("watch", 500))
    server.end_streams()
    await watched.until(Broken, lambda e: e.error is not None)
    await watched.until(Opened)
    assert spacing(server, "watch")[4:] == [10.3, 0.8]
    assert len(asked(server, "list")) == 1


async def test_a_stream_that_hardly_lived_is_a_failure(server, watch, clock):
    """One that is cut off sooner, time and again, is asked for ever more slowly."""
    server.faults += [Fault("watch", 500)] * 2
    watched = await opened(await watch())
    clock.forward(9)
    server.reset_connections()
    await watched.until(Broken, lambda e: isinstance(e.error, Lost))
    await watched.until(Opened)
    assert spacing(server, "watch") == [0.8, 1.6, 12.2]


async def test_a_silent_stream_is_left(server, watch):
    """W15, F3: where bookmarks come, 70 s of silence end the stream; it goes on without a list."""
    watched = await opened(await watch(timings={"idle": 0.1}))
    server.bookmark()
    server.set_ready("shop", "b", 0)
    await watched.applied("b")
    server.silence()
    server.set_ready("shop", "a", 0)
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Silent)
    assert "not a byte in 0.1 s" in str(broken.error)
    server.silence(False)
    assert (await watched.applied("a")).available == 0
    assert len(asked(server, "list")) == 1


async def test_a_server_without_bookmarks_is_asked_anew(server, watch):
    """W15, F26: silence is ended by another watch from the same version, and by no list."""
    server.bookmark_every = None
    watched = await opened(await watch(timings={"idle": 0.1}))
    for _ in range(3):
        assert isinstance((await watched.until(Broken)).error, Silent)
        await watched.until(Opened)
    assert len(asked(server, "list")) == 1
    assert len({seen.query["resourceVersion"] for seen in asked(server, "watch")}) == 1


async def test_a_machine_that_slept_lists_anew(server, watch, clock):
    """W38, F41: a gap that the idle deadline did not end was sleep: what is known is made anew."""
    watched = await opened(await watch())
    clock.forward(3600)
    server.set_ready("shop", "a", 0)
    assert isinstance((await watched.until(Broken)).error, Expired)
    assert "asleep" in str(watched.all(Broken)[0].error)
    await watched.until(Listed)
    assert watched.state["a"].available == 0


SHORT = {"headers": 0.5, "withheld": 1, "grace": 0.2, "lived": 1}


async def test_headers_that_do_not_come_are_no_failure(server, watch, clock):
    """No headers in time is silence: the next watch comes at once, and after two of them a list."""
    server.faults += [Fault("watch", mute=True)] * 2
    watched = await watch(timings=SHORT)
    for _ in range(2):
        await watched.until(Broken, lambda broken: isinstance(broken.error, Withheld))
    await watched.until(Listed)
    await watched.until(Opened)
    assert set(clock.waits) == {0.3}
    assert watched.cluster.stream("").lists == {"start": 1, "withheld": 1}


async def test_withheld_headers_are_replaced_by_lists(server, watch):
    """Each list is what there is to see, and is made before each further watch until one is answered."""
    server.faults += [Fault("watch", mute=True)] * 4
    watched = await watch(timings=SHORT)
    for _ in range(2):
        await watched.until(Broken)
    await server.until(lambda: server.watches == 1)
    assert len(asked(server, "list")) == 4
    assert [seen.query["timeoutSeconds"] for seen in asked(server, "watch")][1:] == ["300"] + [
        "1"
    ] * 3
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    assert len(watched.all(Broken)) == 2
    assert watched.cluster.stream("").breaks == {"withheld": 4}
    assert watched.cluster.stream("").shortened_by == "withheld"
    assert len(asked(server, "list")) == 4


async def test_a_server_that_answers_nothing_withholds_nothing(server, watch):
    """Without an answer to the list, nothing is concluded and nothing shown, and no version is lost."""
    watched = await opened(await watch(timings=SHORT))
    server.silence()
    server.reset_connections()
    await watched.until(Broken, lambda e: "list" in str(e.error))
    assert watched.cluster.stream("").shortened_by is None
    server.silence(False)
    await watched.until(Opened)
    assert watched.cluster.stream("").lists["start"] == 1
    assert asked(server, "watch")[-1].query["timeoutSeconds"] == "300"


async def test_dead_peers_are_noticed():
    """W16: connections ask for TCP keepalive: 30 s idle, then every 15 s."""
    with keepalive_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15


@pytest.mark.parametrize(
    "state",
    ["connecting", "listing", "reading", "backing off", "pausing"],
)
async def test_stops_at_once(server, clock, state):
    """W17: whatever it waits for, it ends within a second of being told."""
    faults = {
        "connecting": [Fault("watch", mute=True)],
        "listing": [Fault("list", mute=True)],
        "backing off": [Fault("list", 500)],
        "pausing": [Fault("watch", ends=True, lines=event("MODIFIED", server.get("shop", "a")))],
    }
    server.faults += faults.get(state, [])
    async with watching(server, ManualClock(clock.now())) as watched:
        if state in ("connecting", "listing"):
            verb = {"connecting": "watch", "listing": "list"}[state]
            await server.until(lambda: bool(asked(server, verb)))
        elif state == "reading":
            await watched.until(Opened)
        else:
            await watched.until(Broken)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 1


ODD = "snow\u2603 next\u0085line par\u2029a sep\u2028arator \U0001f600"


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_chunks_may_end_anywhere(server, watch, piece):
    """W18, F19: borders inside of characters and U+2028 in text: each line is read once, whole."""
    changed = deployment("shop", "a", annotations={"deployment-watcher.dev/owner": ODD})
    changed["metadata"]["resourceVersion"] = "2000"
    line = event("MODIFIED", changed)
    server.faults.append(Fault("watch", lines=line * 3, piece=piece))
    watched = await opened(await watch())
    assert watched.state["a"].annotations == {"owner": ODD}
    assert watched.cluster.stream("").bad_lines == 0


async def test_half_a_line_is_dropped(server, watch):
    """W19, F18: a line without its end is not read, and comes whole after the reconnect, once."""
    line = event("MODIFIED", server.get("shop", "a"))
    server.faults.append(Fault("watch", lines=line[:-20], ends=True))
    watched = await watch()
    await watched.until(Listed)
    server.set_ready("shop", "a", 0)
    broken = await watched.until(Broken)
    assert "inside an event" in str(broken.error)
    assert (await watched.applied("a")).available == 0
    await watched.until(Opened)
    first, second = (seen.query["resourceVersion"] for seen in asked(server, "watch"))
    assert first == second
    assert len(watched.all(Applied)) == 1


async def test_a_huge_object_is_read(server, watch):
    """W20, F20: an object of 6 MiB is seen, and so are the others after it."""
    watched = await opened(await watch())
    server.apply(deployment("shop", "huge", annotations={"x": "y" * (6 << 20)}))
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    assert set(watched.state) == {"a", "b", "c", "huge"}


async def test_a_line_without_end_is_an_error(server, watch):
    """W20: what is longer than any object ends the stream like any unreadable event, and no crash."""
    watched = await opened(await watch(timings={"line_bytes": 100_000}))
    server.send(b"x" * 200_000)
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Garbled)
    assert "more than 100000 bytes" in str(broken.error)
    await watched.until(Opened)
    assert len(asked(server, "list")) == 1


GARBAGE = {
    "no JSON": b"\x00\xffgarbage\n",
    "cut": b'{"type":"ADDED","object":{"kind":"Deplo\n',
    "unknown type": event("PATCHED", deployment("shop", "x")),
    "a table": event("ADDED", {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}),
    "no event": b"[]\n",
}


@pytest.mark.parametrize("bad", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_ends_the_stream(server, watch, bad):
    """F21: nothing after an unreadable event is believed; the next stream goes on from before it."""
    watched = await opened(await watch())
    server.set_ready("shop", "b", 0)
    await watched.applied("b")
    at = str(server.version)
    server.send(bad + event("DELETED", server.get("shop", "c")))
    assert isinstance((await watched.until(Broken)).error, Garbled)
    server.set_ready("shop", "a", 0)
    await watched.until(Opened)
    assert asked(server, "watch")[-1].query["resourceVersion"] == at
    assert {name: s.available for name, s in watched.state.items()} == {"a": 0, "b": 0, "c": 3}
    assert watched.cluster.stream("").bad_lines == 1
    assert len(asked(server, "list")) == 1


async def test_what_was_swallowed_with_garbage_comes_again(server, watch):
    """An event that is glued to a piece of another is not lost, though others follow it."""
    watched = await opened(await watch())
    server.send(b'{"type":"MODIFIED","obj')
    server.set_ready("shop", "a", 0)
    server.set_ready("shop", "b", 2)
    await watched.until(Broken)
    await watched.until(Opened)
    assert {name: s.available for name, s in watched.state.items()} == {"a": 0, "b": 2, "c": 3}


async def test_garbage_that_comes_again_makes_a_list(server, watch):
    """What the server goes on sending from this version on is passed by with a list."""
    server.faults += [Fault("watch", lines=b"x\n")] * 2
    watched = await watch()
    for _ in range(2):
        assert isinstance((await watched.until(Broken)).error, Garbled)
    await watched.until(Opened)
    assert len(asked(server, "list")) == 2
    assert watched.cluster.stream("").lists == {"start": 1, "unreadable": 1}
    assert spacing(server, "watch") == [0.8, 1.6]


async def test_garbage_is_not_listed_for_ever(server, watch):
    """Events in between forgive nothing: a server that garbles time and again is asked ever less."""
    good = [
        event("MODIFIED", server.get("shop", "a") | {"metadata": at}) for at in newer(server, 9)
    ]
    server.faults += [Fault("watch", lines=each + b"x\n") for each in good]
    await opened(await watch())
    assert spacing(server, "watch") == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30, 30]


def newer(server: FakeApiServer, count: int) -> list[Any]:
    """Metadata of what is changed so many times."""
    known = server.get("shop", "a")["metadata"]
    server.version += count
    versions = range(server.version - count + 1, server.version + 1)
    return [known | {"resourceVersion": str(version)} for version in versions]


async def test_a_watch_that_dies_is_started_again(server, watch):
    """W21: an error that nobody foresaw is told, and the scope is listed anew."""
    draws = iter([ZeroDivisionError()])

    def uniform(low, high):
        for bug in draws:
            raise bug
        return high

    watched = await watch(uniform=uniform)
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Protocol)
    assert "ZeroDivisionError" in str(broken.error)
    await watched.until(Opened)
    assert len(asked(server, "list")) == 2


async def test_a_watch_that_was_cancelled_by_mistake_is_started_again(server, watch):
    """W21: a cancellation that nobody asked for does not leave a scope blind in silence."""
    draws = iter([asyncio.CancelledError()])

    def uniform(low, high):
        for bug in draws:
            raise bug
        return high

    watched = await watch(uniform=uniform, scopes=["shop", "elsewhere"])
    broken = await watched.until(Broken, lambda e: isinstance(e.error, Protocol))
    await watched.until(Opened, lambda e: e.scope == broken.scope)


async def test_replays_forgive_nothing(server, watch):
    """W14: streams that replay an old event and end are asked ever more slowly, as empty ones are."""
    old = event("MODIFIED", server.get("shop", "a"))
    server.faults += [Fault("watch", lines=old, ends=True)] * 4
    watched = await watch()
    for _ in range(4):
        await watched.until(Broken)
    assert spacing(server, "watch")[:3] == [0.8, 1.6, 3.2]


async def test_old_events_replace_nothing(server, watch):
    """W22, F22: a replay of old versions neither turns the version back nor hides what is new."""
    old = event("ADDED", server.get("shop", "a"))
    server.set_ready("shop", "a", 0)
    new = event("MODIFIED", server.get("shop", "a"))
    server.faults.append(Fault("watch", lines=new + old * 50, ends=True))
    watched = await watch()
    await server.until(lambda: len(asked(server, "watch")) == 2)
    assert (await watched.applied("a")).available == 0
    await watched.until(Opened)
    assert len(watched.all(Applied)) == 1
    assert asked(server, "watch")[-1].query["resourceVersion"] == str(server.version)


async def test_a_refusal_is_read_with_care(server, watch):
    """W23, F17: of an error page some text is kept; of a Status its message; of neither much."""
    page = b"<html>\r\n<h1>503 Service   Unavailable</h1> No server &lt;here&gt;. " + b"x" * 200_000
    server.faults += [Fault("watch", 503, page), Fault("watch", 500, b"\xff\xfe")]
    watched = await watch()
    error = (await watched.until(Broken)).error
    assert isinstance(error, Unreachable)
    assert "503 (503 Service Unavailable No server <here>. xxx" in str(error)
    assert len(str(error)) < 400
    assert isinstance((await watched.until(Broken)).error, Unreachable)


async def test_an_error_event_without_reason(server, watch):
    """F12: an ERROR with nothing but a code breaks the stream, which goes on from where it was."""
    watched = await opened(await watch())
    server.send(event("ERROR", {"kind": "Status", "code": 500}))
    broken = await watched.until(Broken)
    assert isinstance(broken.error, Unreachable)
    await watched.until(Opened)
    assert len(asked(server, "list")) == 1


async def test_a_slow_consumer_gets_the_latest(server, watch):
    """W24, F36: 500 changes nobody took are one, the newest, in its place; deletions are kept."""
    a, b, c = (server.get("shop", name) for name in "abc")
    changes = b"".join(event("MODIFIED", a | {"spec": {"replicas": n}}) for n in range(500))
    changes += event("DELETED", b) + event("MODIFIED", c)
    server.faults.append(Fault("watch", lines=changes, ends=True))
    watched = await watch()
    await server.until(lambda: len(asked(server, "watch")) == 2)
    await watched.until(Opened)
    assert [type(e) for e in watched.seen[:4]] == [Listed, Applied, Deleted, Applied]
    assert [e.snapshot.name for e in watched.all(Applied)] == ["a", "c"]
    assert watched.state["a"].desired == 499


async def test_a_lower_version_is_another_history(server, watch, clock):
    """A store put back to an older copy: what is read beside the watch shows it, and all is listed anew."""
    backup = server.backup()
    server.delete("shop", "b")
    watched = await opened(await opened(await watch(scopes=["shop", "elsewhere"])))
    reached = server.version
    server.put_back(backup)
    assert (await watched.cluster.probe()).error is None
    for _ in range(2):
        broken = await watched.until(Broken)
        assert isinstance(broken.error, Rewound)
    lists = [await watched.until(Listed) for _ in range(2)]
    assert {(listed.version, listed.rewound_from) for listed in lists} == {
        (str(backup.version), str(reached))
    }
    assert all(listed.asked_at <= clock.now() for listed in lists)
    await watched.until(Opened)
    server.set_ready("shop", "b", 0)
    assert (await watched.applied("b")).available == 0
    stream = watched.cluster.stream("shop")
    assert (stream.rewinds, stream.lists) == (1, {"start": 1, "rewound": 1})


async def test_what_was_asked_before_is_no_other_history(server, watch):
    """A probe that was overtaken by events is older than they are, and says nothing of the history."""
    watched = await opened(await watch())
    following = watched.cluster.watches[""]
    before, version = following.history.mark, str(server.version)
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    following.compare(before, version)
    server.put_back(server.backup())  # nobody can tell: it is the same
    assert (await watched.cluster.probe()).error is None
    server.set_ready("shop", "b", 0)
    await watched.applied("b")
    assert len(asked(server, "list")) == 2, "the list and the probe"


async def test_a_watch_that_waits_lists_anew(server, clock):
    """Between two tries, too: the next one is a list, and what it has is believed."""
    standing = ManualClock(clock.now())
    async with watching(server, standing) as watched:
        backup = server.backup()
        server.set_ready("shop", "a", 0)
        await opened(watched)
        server.put_back(backup)
        server.faults += [Fault("watch", 500)] * 3
        server.reset_connections()
        for _ in range(3):
            await watched.until(Broken)
            await standing.advance(3)
        assert (await watched.cluster.probe()).error is None
        await standing.advance(10)
        assert (await watched.until(Listed)).rewound_from
        assert watched.state["a"].available == 3


@pytest.mark.parametrize(("lost", "anew"), [(2, 1), (3, 2)], ids=["a blip", "an outage"])
async def test_a_stream_that_outlived_an_outage_is_opened_anew(server, watch, clock, lost, anew):
    """Whether it still lives its next bookmark would tell, up to a minute later; no list is needed."""
    watched = await opened(await watch())
    clock.forward(1)
    server.faults += [Fault("list", 503)] * lost
    for _ in range(lost):
        assert (await watched.cluster.probe()).error is not None
    assert (await watched.cluster.probe()).error is None
    if anew == 2:
        assert isinstance((await watched.until(Broken)).error, Silent)
        await watched.until(Opened)
    server.set_ready("shop", "a", 0)
    await watched.applied("a")
    assert len(asked(server, "watch")) == anew
    assert watched.cluster.stream("").lists == {"start": 1}


async def test_scopes_do_not_share_trouble(server, clock):
    """W25: a namespace that is refused leaves the stream of the other one undisturbed."""
    server.apply(deployment("payments", "p"))
    server.forbidden |= {("list", "payments")}
    slow = ManualClock(clock.now())
    async with watching(server, slow, scopes=["shop", "payments"]) as watched:
        broken = await watched.until(Broken)
        assert (broken.scope, type(broken.error)) == ("payments", Forbidden)
        server.set_ready("shop", "a", 0)
        await watched.until(Opened, lambda e: e.scope == "shop")
        server.set_ready("shop", "b", 0)
        await watched.applied("b")
        assert watched.cluster.stream("shop").last_byte_at is not None
        assert watched.cluster.stream("payments").last_byte_at is None
        server.forbidden.clear()
        await slow.advance(1)
        assert {s.name for s in (await watched.until(Listed)).snapshots} == {"p"}
        assert len(watched.all(Broken)) == 1


async def test_sight_returns_with_what_was_missed(server, watch):
    """Opened comes after all that happened while the stream was down."""
    watched = await opened(await watch())
    await server.stop()
    for name in "abc":
        server.set_ready("shop", name, 0)
    await server.start()
    await watched.until(Opened)
    assert {s.available for s in watched.state.values()} == {0}
    assert len(asked(server, "list")) == 1


async def test_sight_returns_when_it_is_quiet(server, watch):
    """A stream is open as soon as nothing more comes for a moment."""
    async with asyncio.timeout(5):
        await opened(await watch(timings={"quiet": 0.02, "catch_up": 60.0}))


async def test_sight_returns_even_when_it_is_never_quiet(server, watch):
    """A stream that never pauses is open after a second at most."""
    watched = await watch(timings={"quiet": 30.0, "catch_up": 0.05})
    await watched.until(Listed)
    async with asyncio.timeout(5):
        while not watched.all(Opened):
            server.set_ready("shop", "a", 0)
            await watched.applied("a")


async def test_a_watch_that_cannot_be_had_becomes_polling(server, watch):
    """F47, F30: while the watch is refused time and again, lists keep the view right."""
    server.forbidden.add(("watch", ""))
    watched = await watch()
    await watched.until(Listed)
    server.set_ready("shop", "a", 0)
    relist = await watched.until(Listed)
    assert {s.name: s.available for s in relist.snapshots}["a"] == 0
    server.forbidden.clear()
    await watched.until(Opened)


async def test_a_nudge_ends_a_backoff(server, clock):
    """Whoever knows that the server is back need not wait for the backoff to end."""
    server.faults += [Fault("list", 500)]
    async with watching(server, ManualClock(clock.now())) as watched:
        await watched.until(Broken)
        watched.cluster.watches[""].answered(anew=True)
        await watched.until(Listed)
