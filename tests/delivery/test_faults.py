"""Whatever a receiver does, everything reaches it in order, once it can: over real sockets."""

import asyncio
import gzip
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
import trustme

from tests.delivery.rig import Recording, Rig, rig
from tests.deployments import ZERO
from tests.fault_server import (
    Behaviour,
    FaultServer,
    answers,
    drips,
    never_ends,
    resets,
    says_nothing,
    talks_nonsense,
)
from watcher.clock import SystemClock
from watcher.core.retry import LONGEST_WAIT
from watcher.sinks.http import Sender
from watcher.sinks.webhook import Webhook
from watcher.testing.clock import ManualClock

WHEN = {"http": "%a, %d %b %Y %H:%M:%S GMT", "asctime": "%a %b %d %H:%M:%S %Y"}
CERTIFICATE = ("ca.pem", "client.pem", "client.key")


def breaks_off_after(sent: bytes) -> Behaviour:
    """So much of an answer, then a reset."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()

    return behave


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
BOMB = gzip.compress(b"\0" * 10_000_000)
FAULTS = {
    "reset at byte 0": resets,
    "reset in the status line": breaks_off_after(HEAD[:7]),
    "reset in the headers": breaks_off_after(HEAD[:25]),
    "reset in the body": breaks_off_after(HEAD + b"ok"),
    "nothing": says_nothing,
    "a drip": drips,
    "not HTTP": talks_nonsense,
    "another length": breaks_off_after(b"HTTP/1.1 503 No\r\nContent-Length: 9999\r\n\r\n..."),
    "bad chunks": breaks_off_after(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "500": answers(500),
    "502": answers(502),
    "503": answers(503),
    "504": answers(504),
    "a bomb": answers(503, BOMB, content_encoding="gzip"),
    "408": answers(408),
    "425": answers(425),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO)


def hook(
    server: FaultServer, clock: ManualClock, total: float = 5.0, name: str = "hook"
) -> Webhook:
    return Webhook(name, Sender(clock, total=total), url=lambda: f"{server.url}/events")


def arrived(server: FaultServer) -> list[str]:
    """The ids of the deliveries, as often as they came."""
    return [request.headers["webhook-id"] for request in server.requests]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_it_is_delivered_in_the_end(
    tmp_path: Path, clock: ManualClock, fault: Behaviour
) -> None:
    """Rows 5, 18: opening and end arrive in this order, under the same id at each attempt."""
    async with FaultServer(answers(204)) as server:
        server.script = [fault] * 3
        total = 0.15 if fault in (says_nothing, drips) else 5.0
        async with rig(tmp_path, hook(server, clock, total), clock=clock) as it:
            await it.opens("web")
            await it.ends("web")
            await it.passes(60)
            assert set((await it.states("hook")).values()) == {"delivered"}
    opening, *others, end = arrived(server)
    assert others == [opening] * 3
    assert end != opening


async def test_gaps_grow(tmp_path: Path, clock: ManualClock) -> None:
    """Row 5: twenty errors are twenty attempts at growing gaps; while it is down, one each 30 s."""
    async with FaultServer(answers(204)) as server:
        server.script = [answers(status) for status in (500, 502, 503, 504) * 5]
        async with rig(tmp_path, hook(server, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(600)
            failed = [line["ts"] for line in it.lines("notification.deferred")]
            (row,) = await it.rows("hook")
    assert len(failed) == 20
    assert failed[:8] == [
        "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:03Z",
        "2026-01-01T00:00:07Z", "2026-01-01T00:00:15Z", "2026-01-01T00:00:20Z",
        "2026-01-01T00:00:30Z", "2026-01-01T00:00:50Z",
    ]  # fmt: skip
    assert (row.delivery.state, row.attempts) == ("delivered", 5), "the breaker costs no attempts"


RETRY_AFTER: dict[str, tuple[str | None, float, float]] = {
    "seconds": ("30", 30, 30),
    "fractions": ("2.5", 2.5, 2.5),
    "a date": ((ZERO + timedelta(seconds=20)).strftime(WHEN["http"]), 20, 20),
    "an old form of date": ((ZERO + timedelta(seconds=20)).strftime(WHEN["asctime"]), 20, 20),
    "a date that is over": ((ZERO - timedelta(days=1)).strftime(WHEN["http"]), 1, 2),
    "zero": ("0", 1, 2),
    "negative": ("-5", 1, 2),
    "words": ("abc", 1, 2),
    "not a number": ("nan", 1, 2),
    "for ever": ("999999999", 3600, 3600),
    "infinite": ("1e999", 1, 2),
    "none": (None, 1, 2),
}


@pytest.mark.parametrize(("header", "least", "most"), RETRY_AFTER.values(), ids=RETRY_AFTER.keys())
async def test_retry_after_is_a_floor(
    tmp_path: Path, clock: ManualClock, header: str | None, least: float, most: float
) -> None:
    """Rows 2, 3: the whole sink waits as long as it is asked to, at most an hour; others do not."""
    async with FaultServer(answers(204)) as server:
        limited = {} if header is None else {"retry_after": header}
        server.script = [answers(429, b"", **limited)]
        other = Recording()
        async with rig(tmp_path, hook(server, clock), other, clock=clock) as it:
            await it.opens("web")
            await it.passes()
            await it.opens("api")
            await it.passes(least - 0.01)
            assert len(server.requests) == 1
            assert len(other.sent) >= 2
            await it.passes(most - least + 0.02)
            assert len(server.requests) == 3
            assert [row.attempts for row in await it.rows("hook")] == [1, 1]
    assert timedelta(seconds=most) <= LONGEST_WAIT


async def test_503_with_retry_after(tmp_path: Path, clock: ManualClock) -> None:
    """Row 6: what is asked for with any error is kept to."""
    async with FaultServer(answers(204)) as server:
        server.script = [answers(503, b"", retry_after="7")]
        async with rig(tmp_path, hook(server, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(6.9)
            assert len(server.requests) == 1
            await it.passes(0.2)
    assert len(server.requests) == 2


@asynccontextmanager
async def answering(port: int) -> AsyncIterator[FaultServer]:
    """A receiver that is back where one was before."""
    back = FaultServer(answers(204))
    back._server = await asyncio.start_server(back._serve, "127.0.0.1", port)
    try:
        yield back
    finally:
        await back.stop()


async def gone(clock: ManualClock) -> tuple[int, Webhook]:
    """A port at which nobody listens, and a sink that has its receiver there."""
    async with FaultServer(answers(204)) as server:
        port = server.port
    return port, Webhook("hook", Sender(clock), url=lambda: f"http://127.0.0.1:{port}/events")


async def test_a_receiver_that_is_gone(tmp_path: Path, clock: ManualClock) -> None:
    """Row 1: refused for ten minutes, all is there within 35 s, late, and the log is not full of it."""
    port, sink = await gone(clock)
    async with rig(tmp_path, sink, clock=clock) as it:
        await it.opens("a", "b", "c", "d", "e")
        await it.passes(300)
        await it.ends("a", "b")
        await it.passes(299)
        assert len(it.lines("notification.deferred")) <= 40
        async with answering(port):
            await it.passes(36)
        assert sorted((await it.states("hook")).values()) == ["delivered"] * 7
        assert it.lines("notification.sent")[-1]["latency"] > 300


@pytest.mark.parametrize("away", [1, 7, 61, 299])
async def test_a_receiver_that_is_restarted_is_told_within_two_seconds(
    tmp_path: Path, clock: ManualClock, away: int
) -> None:
    """Of hundreds that wait one at a time asks whether somebody is there, at no cost to any of them."""
    port, sink = await gone(clock)
    names = [f"app-{number}" for number in range(300)]
    async with rig(tmp_path, sink, other := Recording(), clock=clock) as it:
        await it.opens(*names)
        await it.passes(away)
        tried = [row for row in await it.rows("hook") if row.first_attempt_at]
        asked = sink_counts(it, "deferred")
        assert len(tried) <= 5
        assert away / 2 <= asked <= away / 2 + 5
        assert len(it.lines("notification.deferred")) <= 5
        assert other.told.count("sink.failing hook") == (away > 60)
        async with answering(port) as back:
            await it.passes(2)
            assert len(back.requests) == len(set(arrived(back))) == len(names)
        rows = await it.rows("hook")
        assert {(row.delivery.state, row.attempts) for row in rows} == {("delivered", 1)}


async def test_a_restart_of_the_watcher_asks_anew(tmp_path: Path, clock: ManualClock) -> None:
    """Both are restarted by the same hand: the five minutes begin with the process."""
    port, sink = await gone(clock)
    async with rig(tmp_path, sink, clock=clock) as it:
        await it.opens("web")
        await it.passes(600)
        assert it.dispatchers["hook"].state.held_until(clock.now())
    async with rig(tmp_path, sink, clock=clock) as it:
        await it.passes(20)
        async with answering(port):
            await it.passes(2)
        assert await it.states("hook") == {"web/1 event": "delivered"}


def sink_counts(it: Rig, outcome: str) -> float:
    found = re.search(
        rf'notifications_total{{outcome="{outcome}",sink="hook"}} ([0-9.]+)',
        it.metrics.render([]).decode(),
    )
    return float(found[1]) if found else 0


class Bucket:
    """Takes so many requests and then one a second; who is too fast is asked to wait for one."""

    def __init__(self, clock: ManualClock, size: int) -> None:
        self._clock = clock
        self._size = size
        self._began = clock.now()
        self._taken = 0
        self._refused_at: datetime | None = None
        self.refused = 0
        self.in_shadow = 0
        """Refused while the wait that another was asked for was not over."""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = self._clock.now()
        room = self._size + (now - self._began).total_seconds()
        if self._taken + 1 <= room:
            self._taken += 1
            await answers(204)(reader, writer)
            return
        self.refused += 1
        self.in_shadow += self._refused_at == now
        self._refused_at = now
        await answers(429, b"", retry_after="1")(reader, writer)


async def test_a_refusal_for_being_too_fast_is_not_learned_by_several(
    tmp_path: Path, clock: ManualClock
) -> None:
    """One asks whether it is over; only the very first time several are under way."""
    bucket = Bucket(clock, 10)
    async with (
        FaultServer(bucket.take) as server,
        rig(tmp_path, hook(server, clock), clock=clock) as it,
    ):
        await it.opens(*(f"app-{number}" for number in range(40)))
        await it.passes(60)
        assert set((await it.states("hook")).values()) == {"delivered"}
        assert {row.attempts for row in await it.rows("hook")} == {1}
    assert bucket.in_shadow <= 3
    assert bucket.refused <= 4 + 30


async def test_an_endpoint_that_is_gone(tmp_path: Path, clock: ManualClock) -> None:
    """Row 13: nothing more is sent to an endpoint that says it is gone; its queue is kept."""
    async with FaultServer(answers(410)) as server:
        other = Recording()
        async with rig(tmp_path, hook(server, clock), other, clock=clock) as it:
            await it.opens("web")
            await it.passes(1)
            await it.opens("api")
            await it.passes(298)
            assert len(server.requests) == 1
            assert other.told.count("sink.failing hook") == 1
            assert sorted((await it.states("hook")).values()) == ["parked", "pending"]
            server.usual = answers(204)
            await it.passes(10)
            assert set((await it.states("hook")).values()) == {"delivered"}


@pytest.mark.parametrize(
    ("status", "first", "state"),
    [
        (413, 2, "delivered"),
        (415, 2, "dead"),
        (422, 2, "dead"),
        (400, 2, "dead"),
        (401, 1, "parked"),
    ],
)
async def test_what_a_receiver_does_not_take(
    tmp_path: Path, clock: ManualClock, status: int, first: int, state: str
) -> None:
    """Row 77: too large is sent trimmed, what is not understood is given up, a refusal parks."""
    async with FaultServer(answers(status, b"no thanks")) as server:
        if state == "delivered":
            server.script, server.usual = [answers(status)], answers(204)
        async with rig(tmp_path, hook(server, clock), clock=clock) as it:
            await it.opens("web")
            await it.passes(10)
            (row,) = await it.rows("hook")
            said = [*it.lines("notification.abandoned"), *it.lines("notification.parked")]
    assert (row.delivery.state, len(server.requests)) == (state, first)
    if state != "delivered":
        assert row.error == said[0]["error"] == f"HTTP {status}: no thanks"


async def test_what_is_given_up_does_not_hold_up_the_rest(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Rows 10, 40: the events after a dead one arrive, and their sequence shows the gap."""
    async with FaultServer(answers(204)) as server:
        server.script = [answers(204), answers(422), answers(422)]
        async with rig(tmp_path, hook(server, clock), clock=clock) as it:
            await it.opens("web")
            await it.changes("web", message="second")
            await it.changes("web", message="third")
            await it.ends("web")
            await it.passes(10)
            states = await it.states("hook")
    assert [states[f"web/{n} event"] for n in (1, 2, 3, 4)] == [
        "delivered", "dead", "delivered", "delivered",
    ]  # fmt: skip
    sequences = [request.body.split(b'"sequence":"')[1][:10] for request in server.requests]
    assert sequences == [b"%010d" % n for n in (1, 2, 2, 3, 4)]


async def test_a_receiver_that_says_too_much(tmp_path: Path, clock: ManualClock) -> None:
    """It has answered 2xx: bytes after the answer are no reason to tell it again."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\nok")
        await writer.drain()

    async with FaultServer(behave) as server, rig(tmp_path, hook(server, clock), clock=clock) as it:
        await it.opens("web")
        await it.ends("web")
        await it.passes(3600)
        assert set((await it.states("hook")).values()) == {"delivered"}
        assert len(server.requests) == 2


async def test_an_answer_nobody_knows(tmp_path: Path, clock: ManualClock) -> None:
    """Row 14: it is tried until it is too old, and its end is on record."""
    async with FaultServer(answers(418, b"teapot")) as server:
        other = Recording()
        async with rig(tmp_path, hook(server, clock), other, clock=clock) as it:
            await it.opens("web")
            await it.passes(600)
            assert (await it.states("hook"))["web/1 event"] == "pending"
            it.clock.set(clock.now() + timedelta(hours=73))
            await it.passes(60)
            assert (await it.states("hook"))["web/1 event"] == "expired"
    assert other.told.count("sink.failing hook") == 2


async def test_one_sink_does_not_wait_for_another(tmp_path: Path) -> None:
    """Row 17: while one hangs in its connection or answer, the other has its message at once."""
    clock = SystemClock()
    manual = ManualClock(ZERO)
    other = Recording()
    async with FaultServer(says_nothing) as server:
        stuck = Webhook("stuck", Sender(manual, total=2.0), url=lambda: server.url)
        async with rig(tmp_path, stuck, other, clock=manual) as it:
            running = [asyncio.create_task(d.run()) for d in it.dispatchers.values()]
            await it.opens("web")
            for dispatcher in it.dispatchers.values():
                dispatcher.wake()
            began = clock.now()
            async with asyncio.timeout(5):
                while not (other.sent and server.connections):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)  # noqa: TID251 - real sockets
            assert clock.now() - began < timedelta(seconds=1)
            for task in running:
                task.cancel()
            await server.stop()
            await asyncio.gather(*running, return_exceptions=True)


@pytest.mark.parametrize(
    "behaviour", [never_ends, answers(200, BOMB, content_encoding="gzip")], ids=["endless", "bomb"]
)
async def test_memory_does_not_grow_with_an_answer(behaviour: Behaviour) -> None:
    """Row 19: of an endless or compressed body 64 KiB are read, and nothing is unpacked."""
    process, sender = psutil.Process(), Sender(SystemClock(), total=5.0)
    async with FaultServer(behaviour) as server:
        await sender.post(server.url, b"", {})
        before = process.memory_info().rss
        for _ in range(5):
            await sender.post(server.url, b"", {})
        assert process.memory_info().rss - before < 5 * 2**20


@pytest.fixture(scope="module")
def authority() -> Iterator[trustme.CA]:
    yield trustme.CA()


def client_certificate(authority: trustme.CA, folder: Path, common_name: str) -> None:
    made = authority.issue_cert(f"{common_name}.test", common_name=common_name)
    made.private_key_pem.write_to_path(str(folder / "client.key"))
    pem = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    (folder / "client.pem").write_bytes(pem)


async def test_mutual_tls(tmp_path: Path, clock: ManualClock, authority: trustme.CA) -> None:
    """Rows 22, 23: without our certificate the sink is parked; one that appears, or is renewed, is
    used for the next attempt."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca_file, cert, key = (tmp_path / name for name in CERTIFICATE)
    async with FaultServer(answers(204), context) as server:
        sender = Sender(clock, ca_file=ca_file, client_cert=cert, client_key=key)
        sink = Webhook("hook", sender, url=lambda: server.url)
        async with rig(tmp_path, sink, clock=clock) as it:
            await it.opens("web")
            await it.passes(1)
            assert it.lines("notification.parked")[0]["reason"] == "tls_unreadable"
            client_certificate(authority, tmp_path, "first")
            await it.passes(301)
            assert (await it.states("hook"))["web/1 event"] == "delivered"
            client_certificate(authority, tmp_path, "second")
            await it.ends("web")
            await it.passes(1)
            assert (await it.states("hook"))["web/2 event"] == "delivered"
    assert server.clients == ["first", "second"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_old_tls_is_not_spoken(
    tmp_path: Path, clock: ManualClock, authority: trustme.CA
) -> None:
    """Row 22: a server that knows nothing newer than TLS 1.1 gets no byte of a message."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with FaultServer(answers(204), context) as server:
        sender = Sender(clock, ca_file=tmp_path / "ca.pem")
        sink = Webhook("hook", sender, url=lambda: server.url)
        async with rig(tmp_path, sink, clock=clock) as it:
            await it.opens("web")
            await it.passes(1)
            assert (await it.states("hook"))["web/1 event"] in ("pending", "parked")
    assert server.requests == []
