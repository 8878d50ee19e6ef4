"""What every sink promises, whatever is behind it."""

import asyncio
import io
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Final

import pytest
from msgspec import Struct
from msgspec.structs import replace

from tests.events import event, notification, outage
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
from watcher.core.delivery import Part
from watcher.core.events import ENDS, Edge, Event, Resolution
from watcher.errors import Outcome, SinkError
from watcher.ports import Sink
from watcher.sinks.alertmanager import Alertmanager
from watcher.sinks.apprise import Apprise
from watcher.sinks.console import Console
from watcher.sinks.http import Sender
from watcher.sinks.pagerduty import PagerDuty
from watcher.sinks.slack import SlackBot, SlackWebhook
from watcher.sinks.webhook import Webhook
from watcher.testing.slack import CHANNEL, FakeSlack

TOKEN: Final = "xoxb-not-for-the-log"
KEY: Final = "whsec_bm90LWZvci10aGUtbG9nLWVpdGhlci1wbGVhc2U="
PATH: Final = "/services/T0/B0/not-for-the-log"
SECRETS: Final = (TOKEN, KEY, PATH, "not-for-the-log")
OK_BOT: Final = b'{"ok":true,"channel":"C0123456789","ts":"1.000001"}'


def bot(base: str, sender: Sender) -> Sink:
    return SlackBot("bot", sender, token=lambda: TOKEN, channel=CHANNEL, api_url=f"{base}/api/")


def incoming(base: str, sender: Sender) -> Sink:
    return SlackWebhook("incoming", sender, url=lambda: base + PATH)


def webhook(base: str, sender: Sender) -> Sink:
    return Webhook(
        "hook", sender, url=lambda: f"{base}{PATH}?key=not-for-the-log", secrets=[lambda: KEY]
    )


def alerts_webhook(base: str, sender: Sender) -> Sink:
    secret = {"Authorization": lambda: f"Bearer {TOKEN}"}
    return Webhook("v4", sender, url=lambda: base + PATH, headers=secret, alertmanager=True)


def alertmanager(base: str, sender: Sender) -> Sink:
    secret = {"Authorization": lambda: f"Bearer {TOKEN}"}
    return Alertmanager("am", sender, urls=[lambda: base + PATH], headers=secret)


def pagerduty(base: str, sender: Sender) -> Sink:
    return PagerDuty("pager", sender, routing_key=lambda: TOKEN, url=f"{base}/v2/enqueue")


class Kind(Struct, frozen=True):
    """A sink that talks HTTP, and what its server says when all is well."""

    make: Callable[[str, Sender], Sink]
    ok: bytes
    part: Part
    status: int = 200


HTTP: Final = {
    "slack_bot": Kind(bot, OK_BOT, Part.POST),
    "slack_webhook": Kind(incoming, b"ok", Part.POST),
    "webhook": Kind(webhook, b"", Part.EVENT),
    "webhook_v4": Kind(alerts_webhook, b"", Part.EVENT),
    "alertmanager": Kind(alertmanager, b"", Part.EVENT),
    "pagerduty": Kind(pagerduty, b'{"status":"success"}', Part.EVENT, 202),
}
TOLD: Final = [
    event(Edge.DEGRADED),
    event(Edge.UPDATED, 5, 2, worsened=True),
    event(Edge.RECOVERED, 12, 3),
    event(Edge.CLOSED, 12, 3, resolution=Resolution.DELETED),
    event(Edge.FLAPPING, 12, 3, flapping=True),
    outage(Edge.DEGRADED),
    outage(Edge.RECOVERED, 9, blind_for=480.0),
]


@pytest.fixture(params=list(HTTP))
def kind(request: pytest.FixtureRequest) -> Kind:
    return HTTP[str(request.param)]


@pytest.fixture
async def server(kind: Kind) -> AsyncIterator[FaultServer]:
    async with FaultServer(answers(kind.status, kind.ok)) as server:
        yield server


@pytest.fixture
def sink(kind: Kind, server: FaultServer) -> Sink:
    return kind.make(server.url, Sender(SystemClock()))


async def failure(sink: Sink, part: Part) -> SinkError:
    """The error of one send, which must say nothing that is secret however it is printed."""
    with pytest.raises(SinkError) as caught:
        await sink.send(notification(event(Edge.DEGRADED), part))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [secret for secret in SECRETS if secret in shown]
    return caught.value


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.type)
@pytest.mark.parametrize("name", [*HTTP, "console", "apprise"])
async def test_it_delivers_every_kind_of_event(name: str, told: Event) -> None:
    """What arrives names the state and what it is about."""
    printed = io.StringIO()
    sender = Sender(SystemClock())
    sent = notification(told, HTTP[name].part if name in HTTP else Part.EVENT)
    sent = replace(sent, told=(replace(told, edge=Edge.DEGRADED),) if told.edge in ENDS else ())
    status = HTTP[name].status if name in HTTP else 200
    async with (
        FakeSlack(SystemClock(), token=TOKEN) as slack,
        FaultServer(answers(status)) as server,
    ):
        slack.webhook_path = PATH
        far_end = slack if name.startswith("slack") else server
        if name == "console":
            sink: Sink = Console(stream=printed)
        elif name == "apprise":
            sink = Apprise("any", url=lambda: server.url.replace("http://", "json://"))
        else:
            sink = HTTP[name].make(far_end.url, sender)
        await sink.send(sent)
        seen = [post.shown for post in slack.messages]
        seen += [request.body.decode() for request in server.requests]
        seen += [printed.getvalue()] if printed.getvalue() else []
    assert len(seen) == 1
    assert sent.message.state in seen[0] or '"event_action":"resolve"' in seen[0]
    assert str(told.subject) in seen[0] or name == "pagerduty"


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason", "ambiguous"),
    [
        pytest.param(answers(500), Outcome.RETRY, "http_500", False, id="500"),
        pytest.param(answers(502), Outcome.RETRY, "http_502", True, id="502"),
        pytest.param(answers(503), Outcome.RETRY, "http_503", False, id="503"),
        pytest.param(answers(504), Outcome.RETRY, "http_504", True, id="504"),
        pytest.param(answers(408), Outcome.RETRY, "http_408", False, id="408"),
        pytest.param(answers(425), Outcome.RETRY, "http_425", False, id="425"),
        pytest.param(answers(418), Outcome.RETRY, "http_418", False, id="an unknown 4xx"),
        pytest.param(answers(429), Outcome.THROTTLED, "rate_limited", False, id="429"),
        pytest.param(answers(401), Outcome.PARK, "unauthorized", False, id="401"),
        pytest.param(answers(403), Outcome.PARK, "forbidden", False, id="403"),
        pytest.param(answers(404), Outcome.PARK, "http_404", False, id="404"),
        pytest.param(answers(405), Outcome.PARK, "http_405", False, id="405"),
        pytest.param(answers(407), Outcome.PARK, "http_407", False, id="407"),
        pytest.param(answers(410), Outcome.PARK, "gone", False, id="410"),
        pytest.param(answers(400), Outcome.BAD_PAYLOAD, "http_400", False, id="400"),
        pytest.param(answers(413), Outcome.BAD_PAYLOAD, "http_413", False, id="413"),
        pytest.param(answers(415), Outcome.BAD_PAYLOAD, "http_415", False, id="415"),
        pytest.param(answers(422), Outcome.BAD_PAYLOAD, "http_422", False, id="422"),
        pytest.param(answers(304), Outcome.RETRY_SLOWLY, "redirect", False, id="304"),
        pytest.param(resets, Outcome.RETRY, "connection_lost", True, id="reset after the request"),
        pytest.param(says_nothing, Outcome.RETRY, "timeout", True, id="no answer"),
        pytest.param(drips, Outcome.RETRY, "timeout", True, id="a slow drip"),
        pytest.param(talks_nonsense, Outcome.RETRY, "not_http", True, id="not HTTP"),
    ],
)
async def test_a_failure_has_a_class(
    kind: Kind,
    server: FaultServer,
    behaviour: Behaviour,
    outcome: Outcome,
    reason: str,
    ambiguous: bool,
) -> None:
    """Each way to fail says whether to retry, to slow down, to park or to give up, and why."""
    server.usual = behaviour
    patience = 0.4 if behaviour in (says_nothing, drips) else 8.0
    sink = kind.make(server.url, Sender(SystemClock(), total=patience))
    error = await failure(sink, kind.part)
    assert (error.outcome, error.reason, error.ambiguous) == (outcome, reason, ambiguous)


async def test_a_refused_connection_is_retried(kind: Kind) -> None:
    """A server that is not there has seen nothing: no doubt about a double."""
    async with FaultServer(answers(200)) as gone:
        sink = kind.make(gone.url, Sender(SystemClock()))
    error = await failure(sink, kind.part)
    assert (error.outcome, error.ambiguous) == (Outcome.UNREACHED, False)
    assert str(error) == "connection_refused: connection refused"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    kind: Kind, server: FaultServer, sink: Sink, status: int
) -> None:
    """Row 8: whoever a redirect points to sees neither the message nor the secret."""
    async with FaultServer(answers(kind.status, kind.ok)) as elsewhere:
        server.usual = answers(status, location=f"{elsewhere.url}{PATH}")
        error = await failure(sink, kind.part)
        assert elsewhere.connections == 0
    assert (error.outcome, error.reason) == (Outcome.RETRY_SLOWLY, "redirect")


@pytest.mark.parametrize(
    ("header", "seconds"), [("30", 30.0), ("1.5", 1.5), ("-5", None), ("abc", None), (None, None)]
)
async def test_retry_after_is_passed_on(
    kind: Kind, server: FaultServer, sink: Sink, header: str | None, seconds: float | None
) -> None:
    """How long the server asks to wait is in the error; nonsense is no wait."""
    server.usual = answers(429, retry_after=header) if header else answers(429)
    error = await failure(sink, kind.part)
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert (error.outcome, error.retry_after) == (Outcome.THROTTLED, expected)


async def test_an_endless_answer_is_cut_off(kind: Kind, server: FaultServer) -> None:
    """However much a server sends, the attempt ends, long before its time is over."""
    server.usual = never_ends
    sink = kind.make(server.url, Sender(SystemClock(), total=8.0))
    async with asyncio.timeout(4.0):
        try:
            await sink.send(notification(event(Edge.DEGRADED), kind.part))
        except SinkError as error:
            assert error.outcome is Outcome.RETRY
            assert len(error.detail) < 1000


async def test_an_answer_that_echoes_secrets_is_quoted_without_them(
    kind: Kind, server: FaultServer, sink: Sink
) -> None:
    """A proxy's error page may show the request; what we tell of it does not."""

    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = server.requests[-1]
        said = f"denied: {server.url}{request.path} to {request.path} by {request.headers}"
        await answers(503, said.encode())(reader, writer)

    server.usual = echoes
    error = await failure(sink, kind.part)  # looks for secrets in the error
    assert "denied" in error.detail


async def test_each_attempt_has_a_connection_of_its_own(
    kind: Kind, server: FaultServer, sink: Sink
) -> None:
    """Row 21: a connection that the server closed while idle cannot fail the next attempt."""
    for _ in range(3):
        await sink.send(notification(event(Edge.DEGRADED), kind.part))
    assert [request.connection for request in server.requests] == [1, 2, 3]
    assert {request.headers["connection"] for request in server.requests} == {"close"}


async def test_a_secret_is_read_for_each_attempt(kind: Kind, server: FaultServer) -> None:
    """A rotated secret is used without a restart; one that cannot be read parks the sink."""
    sender = Sender(SystemClock())
    secrets = iter(["first", "second"])

    def rotate() -> str:
        value = next(secrets, None)
        if value is None:
            raise FileNotFoundError(2, "No such file or directory", "/etc/secret")
        return value

    sinks: dict[Callable[[str, Sender], Sink], Sink] = {
        bot: SlackBot("b", sender, token=rotate, channel=CHANNEL, api_url=server.url),
        incoming: SlackWebhook("i", sender, url=lambda: f"{server.url}/{rotate()}"),
        webhook: Webhook("w", sender, url=lambda: f"{server.url}/{rotate()}"),
        alerts_webhook: Webhook(
            "v", sender, url=lambda: server.url, headers={"Authorization": rotate}
        ),
        alertmanager: Alertmanager("a", sender, urls=[lambda: f"{server.url}/{rotate()}"]),
        pagerduty: PagerDuty("p", sender, routing_key=rotate, url=server.url),
    }
    sink = sinks[kind.make]
    for _ in range(2):
        await sink.send(notification(event(Edge.DEGRADED), kind.part))
    seen = [
        f"{request.path} {request.headers.get('authorization')} {request.body!r}"
        for request in server.requests
    ]
    assert "first" in seen[0]
    assert "second" in seen[1]
    error = await failure(sink, kind.part)
    assert (error.outcome, error.reason) == (Outcome.PARK, "secret_unreadable")


@pytest.mark.parametrize("secret", ["", "two\nlines", "nön-ascii"])
async def test_a_malformed_secret_parks_the_sink(
    kind: Kind, server: FaultServer, secret: str
) -> None:
    """A secret that would break a header never leaves the process."""
    sender = Sender(SystemClock())
    sinks: dict[Callable[[str, Sender], Sink], Sink] = {
        bot: SlackBot("b", sender, token=lambda: secret, channel=CHANNEL, api_url=server.url),
        incoming: SlackWebhook("i", sender, url=lambda: secret),
        webhook: Webhook("w", sender, url=lambda: secret),
        alerts_webhook: Webhook(
            "v", sender, url=lambda: server.url, headers={"X-Key": lambda: secret}
        ),
        alertmanager: Alertmanager("a", sender, urls=[lambda: secret]),
        pagerduty: PagerDuty("p", sender, routing_key=lambda: secret, url=server.url),
    }
    error = await failure(sinks[kind.make], kind.part)
    assert (error.outcome, error.reason) == (Outcome.PARK, "secret_malformed")
    assert server.connections == 0


async def test_the_console_says_when_nobody_reads() -> None:
    """A closed standard output is a failure like any other."""
    stream = io.StringIO()
    stream.close()
    with pytest.raises(SinkError, match="closed"):
        await Console(stream=stream).send(notification(event(Edge.DEGRADED)))


async def test_the_console_prints_what_its_terminal_knows() -> None:
    """A terminal without Unicode still gets the message."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    await Console(stream=stream).send(notification(event(Edge.DEGRADED)))
    assert b"Unavailable: Deployment shop/checkout" in raw.getvalue()


async def test_the_console_prints_no_control_characters() -> None:
    """A condition message cannot colour or clear the operator's terminal."""
    printed = io.StringIO()
    hostile = event(Edge.DEGRADED, message="\x1b[2J\x07gone\nsecond line")
    await Console(stream=printed).send(notification(hostile))
    assert printed.getvalue().rstrip("\n").isprintable()
    assert "gone second line" in printed.getvalue()
