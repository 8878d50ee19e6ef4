"""The one sender, and the sinks that use it, against real sockets."""

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from standardwebhooks import Webhook as Verifier

from tests.events import BEGAN, STALLED, event, notification, outage
from tests.fault_server import Behaviour, FaultServer, answers
from watcher.clock import SystemClock
from watcher.core.delivery import Part
from watcher.core.events import Edge, Event, Flaps, Resolution
from watcher.core.model import Json, Severity, Subject
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.answers import check, redact
from watcher.sinks.http import BODY_CAP, Sender, is_forbidden
from watcher.sinks.slack import SlackBot, SlackWebhook
from watcher.sinks.webhook import Webhook
from watcher.testing.clock import ManualClock
from watcher.testing.slack import CHANNEL, FakeSlack, Fault

SCHEMA: Final = json.loads(Path("docs/webhook.schema.json").read_text())
OLD, NEW = (
    "whsec_" + "b2xkIGtleSBvZiB0aGlydHkgYnl0ZXMgb3Igc28=",
    "bmV3IGtleSBvZiB0aGlydHkgYnl0ZXMgb3Igc28=",
)


def says(*addresses: str) -> AbstractResolver:
    """A name server that gives the next address at each question; the empty one is an NXDOMAIN."""
    left = list(addresses)

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            address = left.pop(0)
            if not address:
                raise OSError(socket.EAI_NONAME, "Name or service not known")
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]  # fmt: skip

        async def close(self) -> None: ...

    return Resolver()


async def refusal(sender: Sender, url: str) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sender.post(url, b"secret body", {})
    return caught.value


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "100.100.100.200",
        "::", "fe80::1", "fe80::1%eth0", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_metadata_addresses_are_forbidden(address: str) -> None:
    """Row 59: no way of writing a metadata, link-local or multicast address is one to send to."""
    assert is_forbidden(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fd12::1", "8.8.8.8"]
)
def test_receivers_inside_are_allowed(address: str) -> None:
    """Private ranges and loopback are where receivers in the cluster are."""
    assert not is_forbidden(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://0xA9FEA9FE/",
    ],
)
async def test_a_forbidden_address_is_refused_at_connect(url: str) -> None:
    """Row 59: however the URL writes it, no connection is made to a metadata service."""
    error = await refusal(Sender(SystemClock(), allow_http=True), url)
    assert (error.reason, error.outcome) == ("forbidden_address", Outcome.PARK)


async def test_a_name_cannot_be_rebound_to_a_forbidden_address() -> None:
    """Row 59: a name that was fine at the first attempt is judged anew, by the address connected to."""
    async with FaultServer(answers(200)) as server:
        resolver = says("127.0.0.1", "169.254.169.254")
        sender = Sender(SystemClock(), allow_http=True, resolver=resolver)
        url = f"http://hooks.example:{server.port}/"
        assert (await sender.post(url, b"", {})).status == 200
        assert (await refusal(sender, url)).reason == "forbidden_address"
        assert server.connections == 1


async def test_names_are_looked_up_for_each_attempt() -> None:
    """Rows 15, 16: a name that does not resolve is retried, and the next answer is used."""
    async with FaultServer(answers(200)) as server:
        sender = Sender(SystemClock(), allow_http=True, resolver=says("", "127.0.0.1"))
        url = f"http://hooks.example:{server.port}/"
        error = await refusal(sender, url)
        assert (error.reason, error.outcome, error.ambiguous) == (
            "name_not_resolved",
            Outcome.UNREACHED,
            False,
        )
        assert (await sender.post(url, b"", {})).status == 200


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://receiver.svc/x", True),
        ("http://receiver.ns.svc.cluster.local/x", True),
        ("http://localhost/x", True),
        ("http://hooks.example/x", False),
        ("http://receiver.svc.evil.example/x", False),
        ("ftp://hooks.example/x", False),
        ("not a url", False),
    ],
)
async def test_plain_http_stays_inside(url: str, sent: bool) -> None:
    """Without TLS nothing leaves machine or cluster unless that is configured."""
    error = await refusal(Sender(SystemClock(), resolver=says("", "")), url)
    assert (error.reason == "bad_url") is not sent


async def test_a_full_backlog_ends_the_attempt() -> None:
    """Row 17: a host that does not take the connection costs the connect timeout, and has seen nothing."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):  # the backlog is full from now on
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        sender = Sender(SystemClock(), total=5.0, connect=0.2)
        error = await refusal(sender, f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert (error.reason, error.ambiguous) == ("connect_timeout", False)
    assert error.outcome is Outcome.UNREACHED


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    """Row 19: at most 64 KiB of an answer are read, and it is never decompressed."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    async with FaultServer(answers(200, bomb, content_encoding="gzip")) as server:
        answer = await Sender(SystemClock()).post(server.url, b"", {})
        assert answer.body == bomb[:BODY_CAP]
        assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_answers_are_read_to_the_cap() -> None:
    """A long answer is cut at 64 KiB."""
    async with FaultServer(answers(200, b"x" * 200_000)) as server:
        answer = await Sender(SystemClock()).post(server.url, b"", {})
    assert len(answer.body) == BODY_CAP


SURPLUS = {
    "a length in characters": (b"200 OK\r\nContent-Length: 8", "Größe ok".encode(), "Größe ".encode()),
    "a 204 with a body": (b"204 No Content", b"ok", b""),
    "a 204 with lines": (b"204 No Content", b"ok\r\n\r\nok\r\n", b""),
    "and the end announced": (b"204 No Content\r\nConnection: close", b"ok", b""),
    "a second answer": (b"200 OK\r\nContent-Length: 2", b"okHTTP/1.1 500 No\r\n\r\n", b"ok"),
    "after chunks": (b"200 OK\r\nTransfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\nmore", b"ok"),
    "after an early hint": (b"103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2", b"ok!", b"ok"),
    "lines without CR": (b"200 OK\nContent-Length: 2\n\nok", b"more", b"ok"),
    "a long header": (b"200 OK\r\nContent-Security-Policy: " + b"x" * 60_000 + b"\r\nContent-Length: 2", b"ok", b"ok"),
}  # fmt: skip


def raw(*pieces: bytes) -> Behaviour:
    """These bytes, each piece on its way before the next one is written."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.002)  # noqa: TID251 - segments are real
            writer.write(piece)
            await writer.drain()

    return behave


def answer_with(case: str) -> bytes:
    head, rest, _ = SURPLUS[case]
    return b"HTTP/1.1 " + head + (b"" if b"\n\n" in head else b"\r\n\r\n") + rest


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("case", SURPLUS)
async def test_what_was_answered_counts_whatever_comes_after_it(
    authority: trustme.CA, tmp_path: Path, case: str, encrypted: bool
) -> None:
    """A receiver that has said 2xx was told; bytes that belong to no answer do not make it unsaid."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = tls(authority, "127.0.0.1") if encrypted else None
    async with FaultServer(raw(answer_with(case)), context) as server:
        sender = Sender(SystemClock(), ca_file=tmp_path / "ca.pem")
        answer = await sender.post(server.url, b"", {})
    check(answer, BEGAN)
    assert answer.body == SURPLUS[case][2]


def tunnels_to(port: int) -> Behaviour:
    """A proxy that has been asked to CONNECT, whatever the host."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                to.write(data)
                await to.drain()
            to.close()

        try:
            await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))
        finally:
            far_writer.transport.abort()

    return behave


async def test_it_counts_through_a_proxy_too(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS begins anew inside of the proxy's connection."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = tls(authority, "hooks.example")
    async with (
        FaultServer(raw(answer_with("a 204 with a body")), context) as server,
        FaultServer(tunnels_to(server.port)) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url)
        sender = Sender(SystemClock(), ca_file=tmp_path / "ca.pem")
        answer = await sender.post("https://hooks.example/", b"", {})
        assert (answer.status, len(server.requests), len(proxy.requests)) == (204, 1, 1)


@pytest.mark.parametrize("case", list(SURPLUS)[:-1])
async def test_it_counts_wherever_the_segments_are_cut(case: str) -> None:
    whole = answer_with(case)
    async with FaultServer(answers(500)) as server:
        sender = Sender(SystemClock())
        for cut in range(1, len(whole)):
            server.script = [raw(whole[:cut], whole[cut:])]
            assert (await sender.post(server.url, b"", {})).status < 300, (whole[:cut], whole[cut:])


async def test_what_comes_after_an_answer_is_not_the_next_one() -> None:
    """Neither of the same request nor of another: a refusal stays one, and no connection is used again."""
    good, bad = (b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % s for s in (b"200 OK", b"503 No"))
    async with FaultServer(raw(bad + good)) as server:
        server.script = [raw(good + bad), raw(bad + good), raw(good + bad)]
        sender = Sender(SystemClock())
        statuses = [(await sender.post(server.url, b"", {})).status for _ in range(4)]
        assert server.connections == len(server.requests) == 4
    assert statuses == [200, 503, 200, 503]


def test_redaction_leaves_nothing_but_the_host() -> None:
    """Of any URL only scheme and host stay, and known secrets go wherever they are."""
    text = 'POST https://user:pw@hooks.example:8443/services/T/B/x?k=v#f "https://other/y" s3cret'
    assert redact(text, ["s3cret", ""]) == (
        'POST https://hooks.example:8443/*** "https://other/***" ***'
    )
    assert redact("/services/T/B/x?k=secret", ["https://h/services/T/B/x?k=secret"]) == "***?***"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, *names: str, days: int = 1) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    until = SystemClock().wall() + timedelta(days=days)
    authority.issue_cert(*names, not_after=until).configure_cert(context)
    return context


async def test_a_ca_file_is_trusted_and_read_again(authority: trustme.CA, tmp_path: Path) -> None:
    """Row 22: a server is trusted once its authority is in the file, without a restart."""
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    sender = Sender(SystemClock(), ca_file=ca_file)
    async with FaultServer(answers(200), tls(authority, "127.0.0.1")) as server:
        error = await refusal(sender, server.url)
        assert (error.reason, error.outcome) == ("tls_untrusted", Outcome.PARK)
        assert server.requests == []
        authority.cert_pem.write_to_path(str(ca_file))
        assert (await sender.post(server.url, b"", {})).status == 200


@pytest.mark.parametrize(
    ("names", "days", "reason", "outcome"),
    [
        pytest.param(["other.example"], 1, "tls_untrusted", Outcome.PARK, id="another host"),
        pytest.param(["127.0.0.1"], -1, "tls_expired", Outcome.RETRY, id="expired"),
    ],
)
async def test_a_wrong_certificate_stops_the_attempt(
    authority: trustme.CA,
    tmp_path: Path,
    names: list[str],
    days: int,
    reason: str,
    outcome: Outcome,
) -> None:
    """Row 22: not a byte of the message goes to a server that cannot prove who it is."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with FaultServer(answers(200), tls(authority, *names, days=days)) as server:
        error = await refusal(Sender(SystemClock(), ca_file=tmp_path / "ca.pem"), server.url)
        assert server.requests == []
    assert (error.reason, error.outcome, error.ambiguous) == (reason, outcome, False)


async def test_an_unknown_authority_is_not_trusted(authority: trustme.CA) -> None:
    """Without a CA file the system's authorities decide, and a private one is not among them."""
    async with FaultServer(answers(200), tls(authority, "127.0.0.1")) as server:
        assert (await refusal(Sender(SystemClock()), server.url)).reason == "tls_untrusted"


async def test_a_missing_ca_file_parks(tmp_path: Path) -> None:
    """A CA file that is not there is for a human to mend."""
    sender = Sender(SystemClock(), ca_file=tmp_path / "none.pem")
    assert (await refusal(sender, "https://127.0.0.1:1/")).reason == "tls_unreadable"


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("", False),
        ("hooks.svc", True),
        (".svc", True),
        ("10.0.0.0/8, example.com", False),
        ("*", True),
    ],
)
async def test_no_proxy_is_honoured(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: bool
) -> None:
    """Row 24: the environment's proxy is used but for what NO_PROXY names; all its forms are in test_auth."""
    async with FaultServer(answers(200)) as server, FaultServer(answers(200)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", no_proxy)
        sender = Sender(SystemClock(), resolver=says("127.0.0.1"))
        await sender.post(f"http://hooks.svc:{server.port}/", b"", {})
        assert (server.connections, proxy.connections) == ((1, 0) if direct else (0, 1))


@pytest.mark.parametrize(
    ("status", "outcome"), [(407, Outcome.PARK), (502, Outcome.RETRY), (None, Outcome.UNREACHED)]
)
async def test_a_proxy_can_fail_too(
    monkeypatch: pytest.MonkeyPatch, status: int | None, outcome: Outcome
) -> None:
    """Row 24: a proxy that refuses us needs a human; one that is down or cannot connect is retried."""
    proxy = FaultServer(answers(status or 200))
    async with proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        if status is None:
            await proxy.stop()
        error = await refusal(Sender(SystemClock()), "https://hooks.example/secret")
    assert (error.reason, error.outcome, error.ambiguous) == ("proxy_failed", outcome, False)


@pytest.fixture
async def hook() -> AsyncIterator[FaultServer]:
    async with FaultServer(answers(204)) as server:
        yield server


def webhook(server: FaultServer, *secrets: str) -> Webhook:
    readers = [lambda secret=secret: secret for secret in secrets]
    return Webhook("hook", Sender(SystemClock()), url=lambda: f"{server.url}/in", secrets=readers)


EVENTS: Final = [
    event(Edge.DEGRADED),
    event(Edge.DEGRADED, **STALLED),
    event(Edge.UPDATED, 5, 2, worsened=True),
    event(Edge.RECOVERED, 12, 3),
    *(event(Edge.CLOSED, 9, 3, resolution=how) for how in Resolution),
    event(Edge.FLAPPING, 10, flapping=True),
    event(Edge.FLAPPING, 10, flapping=True, flaps=Flaps(6, BEGAN, timedelta(seconds=125.5))),
    *(
        outage(Edge.DEGRADED, reason=reason)
        for reason in ("unreachable", "unauthorized", "view_stale", "throttled")
    ),
    outage(Edge.UPDATED, 2, reason="unauthorized"),
    outage(Edge.RECOVERED, 9, blind_for=480.0),
    outage(Edge.CLOSED, 9, resolution=Resolution.NOT_WATCHED),
    event(Edge.DEGRADED, subject=Subject("", name="oncall"), reason="sink.failing", facts=None),
    event(Edge.RECOVERED, subject=Subject("", name="oncall"), reason="sink.restored", facts=None),
    event(Edge.DEGRADED, subject=Subject(""), reason="store.failing", facts=None),
    event(Edge.DEGRADED, subject=Subject("", name="oncall"), reason="test", facts=None),
    event(Edge.DEGRADED, message="é\ud800\u202e." * 100_000, subject=Subject("ü", "n" * 63, "x" * 253)),
]  # fmt: skip


@pytest.mark.parametrize("told", EVENTS, ids=lambda told: told.type)
async def test_every_payload_is_a_signed_cloud_event(hook: FaultServer, told: Event) -> None:
    """Row 61: two other implementations and the published schema take what is sent, byte for byte."""
    sent = notification(told)
    await webhook(hook, OLD).send(sent)
    request = hook.requests[0]
    Verifier(OLD).verify(request.body, dict(request.headers))
    body = json.loads(request.body)
    Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(body)
    parsed = from_http_event(HTTPMessage(dict(request.headers), request.body))
    assert (parsed.get_id(), parsed.get_type(), parsed.get_time()) == (
        told.id,
        f"dev.deployment-watcher.{told.type}.v1",
        told.at,
    )
    assert request.headers["webhook-id"] == body["data"]["delivery"] == sent.delivery_id
    assert len(request.body) <= 65_536


async def test_a_recovery_tells_all_that_a_machine_wants(hook: FaultServer) -> None:
    """The payload of an end, whole: nothing has to be looked up elsewhere."""
    told = event(Edge.RECOVERED, 12, 3)
    await webhook(hook).send(notification(told))
    body = json.loads(hook.requests[0].body)
    assert body.pop("data") == {
        "incident": told.incident,
        "delivery": hook.requests[0].headers["webhook-id"],
        "event": "recovered",
        "cluster": "prod-eu",
        "namespace": "shop",
        "name": "checkout",
        "uid": "0d2c",
        "reason": "none_available",
        "severity": "critical",
        "title": "Recovered after 12 min: shop/checkout in prod-eu",
        "message": "0 of 3 replicas available, 2 needed",
        "summary": notification(told).message.text,
        "truncated": False,
        "since": "2026-11-22T14:02:00Z",
        "opened_at": "2026-11-22T14:02:30Z",
        "flapping": False,
        "worsened": False,
        "was_critical": False,
        "unseen": False,
        "duration_seconds": 720.0,
        "facts": {"desired": 3, "floor": 2, "updated": 3, "ready": 3, "available": 3,
                  "old_serving": 0, "generation": 12, "revision": 7},
    }  # fmt: skip
    assert body == {
        "specversion": "1.0",
        "id": f"{told.incident}-0000000003",
        "type": "dev.deployment-watcher.deployment.recovered.v1",
        "source": "/clusters/prod-eu",
        "subject": "namespaces/shop/deployments/checkout",
        "time": "2026-11-22T14:14:00Z",
        "sequence": "0000000003",
        "partitionkey": told.incident,
        "datacontenttype": "application/json",
    }


@pytest.mark.parametrize(
    ("told", "pushed"),
    [
        pytest.param(
            [event(Edge.DEGRADED, **STALLED)],
            [("warning", "firing", "Degraded: shop/checkout in prod-eu")],
            id="opens",
        ),
        pytest.param(
            [event(Edge.DEGRADED, **STALLED), event(Edge.UPDATED, 5, 2, was_critical=True, worsened=True)],
            [
                ("critical", "firing", "Unavailable: shop/checkout in prod-eu"),
                (
                    "warning", "resolved",
                    "Not over, now critical: Unavailable: shop/checkout in prod-eu",
                ),
            ],
            id="gets worse",
        ),
        pytest.param(
            [event(Edge.DEGRADED, **STALLED), event(Edge.RECOVERED, 12, 3, **STALLED)],
            [("warning", "resolved", "Recovered after 12 min: shop/checkout in prod-eu")],
            id="ends, never critical",
        ),
        pytest.param(
            [event(Edge.DEGRADED), event(Edge.RECOVERED, 12, 2)],
            [("critical", "resolved", "Recovered after 12 min: shop/checkout in prod-eu")],
            id="ends, critical from the start",
        ),
        pytest.param(
            [
                event(Edge.DEGRADED, **STALLED), event(Edge.UPDATED, 5, 2, worsened=True),
                event(Edge.UPDATED, 6, 3, message="worse"), event(Edge.RECOVERED, 12, 4),
            ],
            [("critical", "resolved", "Recovered after 12 min: shop/checkout in prod-eu")],
            id="ends, its warning long resolved",
        ),
        pytest.param(
            [event(Edge.DEGRADED), event(Edge.UPDATED, 5, 2, **STALLED), event(Edge.UPDATED, 6, 3)],
            [
                ("critical", "firing", "Unavailable: shop/checkout in prod-eu"),
                ("warning", "resolved",
                 "Not over, now critical: Unavailable: shop/checkout in prod-eu"),
            ],
            id="eases and gets worse again",
        ),
        pytest.param([event(Edge.RECOVERED, 12, 3)], [], id="ends, its opening was given up"),
        pytest.param(
            [event(Edge.UPDATED, 5, 3), event(Edge.DEGRADED, **STALLED)], [], id="an opening comes late"
        ),
        pytest.param(
            [event(Edge.DEGRADED), event(Edge.RECOVERED, 9, 3), event(Edge.UPDATED, 5, 2)],
            [], id="an update comes after the end",
        ),
    ],
)  # fmt: skip
async def test_alertmanagers_resolved_is_not_read_as_over(
    hook: FaultServer, told: list[Event], pushed: list[tuple[str, str, str]]
) -> None:
    """The alert of the former severity ends and says that the outage does not; what never fired does not end."""
    *before, now = told
    sender = Sender(ManualClock(now.at))
    one = replace(notification(now), told=tuple(before))
    await Alertmanager("am", sender, urls=[lambda: hook.url]).send(one)
    alerts = [
        (
            alert["labels"]["severity"],
            "firing" if datetime.fromisoformat(alert["endsAt"]) > now.at else "resolved",
            alert["annotations"]["summary"],
        )
        for alert in json.loads(hook.requests[0].body)
    ]
    assert sorted(alerts) == pushed


async def test_during_rotation_either_secret_verifies(hook: FaultServer) -> None:
    """Old and new secret sign the same attempt; with whsec_ or without it is the same for a library."""
    await webhook(hook, OLD, NEW).send(notification(event(Edge.DEGRADED)))
    request = hook.requests[0]
    for key in (OLD, OLD.removeprefix("whsec_"), NEW, f"whsec_{NEW}"):
        Verifier(key).verify(request.body, dict(request.headers))
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(b"another").verify(request.body, dict(request.headers))


async def test_a_second_attempt_has_the_same_id_and_its_own_time(hook: FaultServer) -> None:
    """Row 50: a receiver drops a double by its id, and accepts a late attempt by its timestamp."""
    clock = ManualClock(BEGAN)
    sink = Webhook("hook", Sender(clock), url=lambda: hook.url, secrets=[lambda: OLD])
    for _ in range(2):
        await sink.send(notification(event(Edge.DEGRADED)))
        clock.set(clock.now() + timedelta(hours=1))
    first, second = (request.headers for request in hook.requests)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 3600


async def test_a_message_that_is_too_large_is_sent_trimmed(hook: FaultServer) -> None:
    """Row 77: after a 413 the second form has short texts and says so."""
    told = event(Edge.DEGRADED, message="m" * 3000)
    await webhook(hook).send(notification(told))
    await webhook(hook).send(notification(told, plain=True))
    whole, trimmed = (json.loads(request.body)["data"] for request in hook.requests)
    assert (whole["truncated"], trimmed["truncated"]) == (False, True)
    assert len(trimmed["message"]) < 250


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack(ManualClock(BEGAN)) as slack:
        yield slack


@pytest.fixture
def bot(slack: FakeSlack) -> SlackBot:
    sender = Sender(slack.clock, total=2.0)
    return SlackBot(
        "oncall", sender, token=lambda: slack.token, channel=CHANNEL, api_url=slack.api_url
    )


async def test_an_incident_is_one_message_with_a_thread(slack: FakeSlack, bot: SlackBot) -> None:
    """The message is edited to what is current; the thread keeps the history; the end is broadcast."""
    thread = await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    worse, up = event(Edge.UPDATED, 5, 2), event(Edge.RECOVERED, 12, 3)
    for told in (worse, up):
        for part in (Part.EDIT, Part.REPLY):
            await bot.send(notification(told, part, thread=thread))
    (post,) = slack.messages
    assert post.shown.startswith("✅ Recovered after 12 min: shop/checkout")
    assert [len(post.edits), [reply.broadcast for reply in post.replies]] == [2, [False, True]]
    assert thread == {"channel": CHANNEL, "ts": post.ts}
    assert "14:07 UTC Unavailable now: shop/checkout" in post.replies[0].shown
    assert slack.render().count("(from a thread)") == 1


async def test_a_message_can_be_recognised(slack: FakeSlack, bot: SlackBot) -> None:
    """Every message carries its delivery, incident and sequence, and unfurls nothing."""
    sent = notification(event(Edge.DEGRADED), Part.POST)
    await bot.send(sent)
    payload = slack.messages[0].payload
    assert payload["metadata"] == {
        "event_type": "deployment_watcher",
        "event_payload": {
            "delivery_id": sent.delivery_id,
            "incident_id": sent.event.incident,
            "seq": 1,
        },
    }
    assert payload["client_msg_id"] == sent.delivery_id
    assert (payload["unfurl_links"], payload["unfurl_media"]) == (False, False)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        *((w, Outcome.RETRY) for w in ("internal_error", "service_unavailable", "brand_new_word")),
        *((w, Outcome.THROTTLED) for w in ("ratelimited", "rate_limited")),
        *((w, Outcome.RETRY_SLOWLY) for w in ("team_added_to_org", "message_limit_exceeded")),
        *((w, Outcome.PARK) for w in ("invalid_auth", "not_in_channel", "restricted_action_x")),
        *((w, Outcome.BAD_PAYLOAD) for w in ("invalid_blocks", "invalid_arg_name", "msg_too_long")),
        *((w, Outcome.REPOST) for w in ("message_not_found", "edit_window_closed")),
        ("restricted_action_thread_locked", Outcome.REPOST),
    ],
)
async def test_slacks_words_have_a_class(
    slack: FakeSlack, bot: SlackBot, word: str, outcome: Outcome
) -> None:
    """What Slack answers with status 200 decides whether to retry, park, repost or give up."""
    slack.faults.append(Fault(200, json.dumps({"ok": False, "error": word})))
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    assert caught.value.outcome is outcome
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "body", ["<html>Log in to the Wi-Fi</html>", "", "ok", '{"ok":true}', "[]", '{"ok":1}']
)
async def test_a_success_that_slack_did_not_write_is_none(
    slack: FakeSlack, bot: SlackBot, body: str
) -> None:
    """Row 7: a 200 without `ok` and `ts` may be a captive proxy: the message is sent again."""
    slack.faults.append(Fault(200, body))
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    assert (caught.value.reason, caught.value.ambiguous) == ("bad_answer", True)


async def test_a_lost_answer_is_ambiguous(slack: FakeSlack, bot: SlackBot) -> None:
    """The message is there although the sender saw a reset; its id tells the double."""
    slack.faults.append(Fault(reset=True, accepted=True))
    sent = notification(event(Edge.DEGRADED), Part.POST)
    with pytest.raises(SinkError) as caught:
        await bot.send(sent)
    await bot.send(sent)
    assert caught.value.ambiguous
    assert len({post.payload["client_msg_id"] for post in slack.messages}) == 1


async def test_a_slow_slack_is_not_waited_for(slack: FakeSlack) -> None:
    """An answer that does not come in time may mean anything; only the fitting request is slow."""
    slack.faults.append(Fault(delay=60.0, path="chat.postMessage"))
    sender = Sender(slack.clock, total=0.2)
    hook = SlackWebhook("hook", sender, url=lambda: slack.webhook_url)
    await hook.send(notification(event(Edge.DEGRADED), Part.POST))
    bot = SlackBot("bot", sender, token=lambda: slack.token, channel=CHANNEL, api_url=slack.api_url)
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    assert (caught.value.reason, caught.value.ambiguous) == ("timeout", True)


@pytest.mark.parametrize("part", [Part.EDIT, Part.REPLY])
async def test_a_message_that_is_gone_is_posted_anew(
    slack: FakeSlack, bot: SlackBot, part: Part
) -> None:
    """When somebody deleted the message, edits and replies ask for a new post, which works."""
    thread = await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    slack.delete(slack.messages[0].ts)
    up = event(Edge.RECOVERED, 12, 2)
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(up, part, thread=thread))
    assert caught.value.outcome is Outcome.REPOST
    assert await bot.send(notification(up, Part.POST)) != thread


@pytest.mark.parametrize("part", [Part.EDIT, Part.REPLY])
async def test_without_a_receipt_it_is_posted_anew(bot: SlackBot, part: Part) -> None:
    """A part of a message that is not known cannot be sent as that part."""
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.RECOVERED, 12, 2), part))
    assert caught.value.outcome is Outcome.REPOST


async def test_a_closed_edit_window_asks_for_a_new_post(slack: FakeSlack, bot: SlackBot) -> None:
    """Workspaces may forbid edits after a while: that is no error of ours."""
    thread = await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    slack.edit_window = timedelta(minutes=5)
    assert isinstance(slack.clock, ManualClock)
    slack.clock.set(BEGAN + timedelta(minutes=10))
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.RECOVERED, 12, 2), Part.EDIT, thread=thread))
    assert (caught.value.reason, caught.value.outcome) == ("edit_window_closed", Outcome.REPOST)


@pytest.mark.parametrize("state", ["is_archived", "not_in_channel"])
async def test_a_channel_that_is_closed_to_us_parks(
    slack: FakeSlack, bot: SlackBot, state: str
) -> None:
    """Only a human can open a channel again; afterwards the same send goes through."""
    slack.channels[CHANNEL] = state
    with pytest.raises(SinkError) as caught:
        await bot.send(notification(event(Edge.DEGRADED), Part.POST))
    assert (caught.value.reason, caught.value.outcome) == (state, Outcome.PARK)
    slack.channels[CHANNEL] = ""
    await bot.send(notification(event(Edge.DEGRADED), Part.POST))


async def test_plain_is_the_text_alone(slack: FakeSlack, bot: SlackBot) -> None:
    """What was refused with blocks is sent as text, which tells the same story."""
    await bot.send(notification(event(Edge.DEGRADED), Part.POST, plain=True))
    (post,) = slack.messages
    assert post.blocks == []
    assert post.shown == notification(event(Edge.DEGRADED), Part.POST).message.text


def storm(size: int) -> tuple[Event, list[Event]]:
    """A digest and the incidents in it."""
    rows = [
        event(
            Edge.DEGRADED, incident=f"m{n}", subject=Subject("prod-eu", "shop", f"service-{n:03d}")
        )
        for n in range(size)
    ]
    digest = event(
        Edge.DEGRADED,
        subject=Subject("prod-eu", "", "oncall", "digest/oncall/x"),
        digest=True,
        reason="storm",
        message="",
        facts=None,
        severity=Severity.CRITICAL,
        members=tuple(row.incident for row in rows),
    )
    return digest, rows


async def test_every_name_of_a_storm_is_in_the_thread(slack: FakeSlack, bot: SlackBot) -> None:
    """500 Deployments are one post with the first names, and a few replies with all of them."""
    digest, rows = storm(500)
    thread = await bot.send(notification(digest, Part.POST, members=rows))
    await bot.send(notification(digest, Part.REPLY, members=rows, thread=thread))
    (post,) = slack.messages
    assert "+485 more lines in the thread" in post.shown
    assert "500 Deployments degraded in prod-eu" in post.shown
    listed = "\n".join(reply.shown for reply in post.replies)
    assert [row for row in rows if f"{row.subject}: " not in listed] == []
    assert len(post.replies) <= 10


async def test_a_list_that_was_cut_short_goes_on_where_it_ended(
    slack: FakeSlack, bot: SlackBot
) -> None:
    """A refusal in the middle of a long list repeats nothing that has arrived."""
    digest, rows = storm(500)
    thread = await bot.send(notification(digest, Part.POST, members=rows))
    slack.faults += [Fault(), Fault(), Fault(429, headers={"Retry-After": "1"})]
    reply = notification(digest, Part.REPLY, members=rows, thread=thread)
    with pytest.raises(SinkError):
        await bot.send(reply)
    await bot.send(reply)
    titles = [line.shown.split("\n")[0] for line in slack.messages[0].replies]
    assert len(titles) == len(set(titles)) > 3


async def test_without_threads_a_storm_goes_on_in_further_messages(slack: FakeSlack) -> None:
    """An incoming webhook has no thread: all 500 names are in the channel, in three messages."""
    digest, rows = storm(500)
    sink = SlackWebhook("hook", Sender(slack.clock), url=lambda: slack.webhook_url)
    await sink.send(notification(digest, Part.POST, members=rows))
    listed = "\n".join(post.shown for post in slack.messages)
    assert [row for row in rows if row.subject.name not in listed] == []
    assert "in the thread" not in listed
    assert len(slack.messages) <= 3


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        pytest.param(Fault(403, "invalid_token"), Outcome.PARK, "invalid_token", id="token"),
        pytest.param(Fault(403, "action_prohibited"), Outcome.PARK, "action_prohibited", id="admin"),
        pytest.param(Fault(404, "no_service"), Outcome.PARK, "no_service", id="removed"),
        pytest.param(Fault(410, "channel_is_archived"), Outcome.PARK, "channel_is_archived", id="archived"),
        pytest.param(Fault(400, "invalid_payload"), Outcome.BAD_PAYLOAD, "invalid_payload", id="payload"),
        pytest.param(Fault(500, "rollup_error"), Outcome.RETRY, "rollup_error", id="rollup"),
        pytest.param(Fault(200, "<html>login</html>"), Outcome.RETRY, "bad_answer", id="captive"),
        pytest.param(Fault(200, ""), Outcome.RETRY, "bad_answer", id="empty"),
        pytest.param(Fault(429, "rate_limited", {"Retry-After": "3"}), Outcome.THROTTLED, "rate_limited", id="429"),
    ],
)  # fmt: skip
async def test_an_incoming_webhook_says_what_is_wrong(
    slack: FakeSlack, fault: Fault, outcome: Outcome, reason: str
) -> None:
    """The short words of Slack's webhooks are understood."""
    slack.faults.append(fault)
    sink = SlackWebhook("hook", Sender(slack.clock), url=lambda: slack.webhook_url)
    with pytest.raises(SinkError) as caught:
        await sink.send(notification(event(Edge.DEGRADED), Part.POST))
    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)


async def test_an_incoming_webhook_of_the_fake_refuses_too() -> None:
    """A removed webhook, an archived channel and too many messages are refused in Slack's words."""
    clock = ManualClock(BEGAN)
    async with FakeSlack(clock, rate=1.0) as slack:

        async def refused(url: str) -> tuple[str, Outcome]:
            sink = SlackWebhook("hook", Sender(clock), url=lambda: url)
            with pytest.raises(SinkError) as caught:
                for _ in range(6):
                    await sink.send(notification(event(Edge.DEGRADED), Part.POST))
            return caught.value.reason, caught.value.outcome

        assert await refused(f"{slack.url}/services/T0/B0/gone") == ("no_service", Outcome.PARK)
        assert await refused(slack.webhook_url) == ("rate_limited", Outcome.THROTTLED)
        slack.channels[CHANNEL] = "is_archived"
        assert await refused(slack.webhook_url) == ("channel_is_archived", Outcome.PARK)


@pytest.mark.parametrize(
    "secret", ["whsec_x", "whsec_", "whsec_!", "whsec_-_-_-_-_", "a text of more than 24 bytes"]
)
async def test_a_key_that_is_no_base64_parks(hook: FaultServer, secret: str) -> None:
    """A signing secret that cannot be what it says it is never signs anything."""
    with pytest.raises(SinkError) as caught:
        await webhook(hook, secret).send(notification(event(Edge.DEGRADED)))
    assert (caught.value.reason, caught.value.outcome) == ("secret_malformed", Outcome.PARK)
    assert caught.value.detail.startswith("secrets.0 ")
    assert secret not in caught.value.detail or secret == "whsec_"
    assert hook.connections == 0


def blocks(*texts: str) -> Json:
    return {"text": "t", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": t}} for t in texts]}  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        pytest.param({}, "no_text", id="nothing"),
        pytest.param(blocks(*["x"] * 51), "invalid_blocks", id="51 blocks"),
        pytest.param(blocks("x" * 3001), "invalid_blocks", id="a long section"),
        pytest.param(blocks(""), "invalid_blocks", id="an empty text"),
        pytest.param(blocks(*["x" * 3000] * 5), "msg_blocks_too_long", id="too much altogether"),
        pytest.param({"text": "x" * 40_001}, "msg_too_long", id="a long text"),
        pytest.param({"text": "x", "metadata": {}}, "invalid_metadata_format", id="metadata"),
        pytest.param({"text": "x", "blocks": [{"type": "marquee"}]}, "invalid_blocks", id="a block of no kind"),
        pytest.param({"text": "x", "thread_ts": "1.5"}, "cannot_reply_to_message", id="no parent"),
        pytest.param({"text": "x", "channel": "C999"}, "channel_not_found", id="no channel"),
    ],
)  # fmt: skip
async def test_the_fake_refuses_what_slack_refuses(
    slack: FakeSlack, payload: Json, word: str
) -> None:
    """The stand-in is no more patient than the original."""
    body = json.dumps({"channel": CHANNEL, **payload}).encode()
    headers = {"Authorization": f"Bearer {slack.token}", "Content-Type": "application/json"}
    answer = await Sender(slack.clock).post(f"{slack.api_url}chat.postMessage", body, headers)
    assert json.loads(answer.body) == {"ok": False, "error": word}


async def test_the_fake_limits_the_rate() -> None:
    """Five messages at once are fine, the sixth is told to wait, and a second later it goes."""
    clock = ManualClock(BEGAN)
    async with FakeSlack(clock, rate=1.0) as slack:
        sender = Sender(clock)
        sink = SlackBot(
            "b", sender, token=lambda: slack.token, channel=CHANNEL, api_url=slack.api_url
        )
        told: Callable[[], Notification] = lambda: notification(event(Edge.DEGRADED), Part.POST)  # noqa: E731
        for _ in range(5):
            await sink.send(told())
        with pytest.raises(SinkError) as caught:
            await sink.send(told())
        assert caught.value.retry_after == timedelta(seconds=1)
        clock.set(BEGAN + timedelta(seconds=1))
        await sink.send(told())


async def test_the_fake_wants_its_token(slack: FakeSlack) -> None:
    """A wrong token is refused, as by `auth.test`."""
    headers: dict[str, Any] = {"Content-Type": "application/json"}
    url = f"{slack.api_url}auth.test"
    words = []
    for given in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Bearer {slack.token}"}):
        answer = await Sender(slack.clock).post(url, b"{}", headers | given)
        words.append(json.loads(answer.body).get("error"))
    assert words == ["not_authed", "invalid_auth", None]
