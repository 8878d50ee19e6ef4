"""The audit log: what is committed is echoed, one inert line each, as docs/audit.md says."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.events import BEGAN, CHECKOUT, event, outage
from tests.logs import captured
from watcher import audit
from watcher.cluster.decode import snapshot_from
from watcher.config.secrets import hide
from watcher.core.delivery import Delivery, DeliveryState, Outcome, Part
from watcher.core.events import Edge, Event, Resolution
from watcher.core.model import DeploymentSnapshot, Severity, Subject
from watcher.core.phases import Pending
from watcher.core.retry import Verdict
from watcher.errors import Expired, SinkError, StoreError, Throttled, Unreachable
from watcher.metrics import Metrics
from watcher.ports import Applied, Broken, Claim, Deleted, Listed, Opened, Probe, Record
from watcher.reporting import Reporting
from watcher.testing.clock import ManualClock
from watcher.testing.objects import deployment
from watcher.view import View

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"
OPENED = event(Edge.DEGRADED)
LATER = OPENED.at + timedelta(seconds=8)
DEFERRED = Verdict(DeliveryState.PENDING, LATER)
PARKED = Verdict(DeliveryState.PARKED, LATER)
REFUSED = SinkError("bad_token", Outcome.PARK, detail="HTTP 401")

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Standard error."""
    with captured() as stream:
        yield stream


@pytest.fixture
def lines(log: io.StringIO) -> Lines:
    """The log's lines so far, read as JSON."""
    audit.configure(log, "warning", json=True, clock=ManualClock(BEGAN))
    return lambda: [json.loads(line) for line in log.getvalue().splitlines()]


@pytest.fixture
def view() -> View:
    view = View()
    view.store_error = None
    return view


@pytest.fixture
def metrics(view: View) -> Metrics:
    return Metrics(view, ManualClock(BEGAN), ["oncall"])


@pytest.fixture
def reporting(view: View, metrics: Metrics) -> Reporting:
    return Reporting(view, metrics)


def delivery(
    of: Event = OPENED, state: DeliveryState = DeliveryState.PENDING, reason: str = ""
) -> Delivery:
    return Delivery("oncall", of.id, of.incident, of.sequence, Part.EVENT, of.at, state, reason)


def claim(of: Event = OPENED) -> Claim:
    return Claim(delivery(of), 1, of.at, False, "HTTP 503", of, of, None)


def everything(reporting: Reporting) -> None:
    """Cause every audit event there is."""
    reporting.recorded(
        Record(
            events=(
                OPENED,
                event(Edge.UPDATED, 1, 2),
                event(Edge.FLAPPING, 2, 3),
                event(Edge.RECOVERED, 3, 4),
                event(Edge.CLOSED, 4, 5, resolution=Resolution.DELETED),
                event(Edge.DEGRADED, 5, 1, digest=True, members=("a", "b")),
                event(Edge.UPDATED, 5, 2, digest=True),
                event(Edge.RECOVERED, 5, 3, digest=True),
            ),
            deliveries=(
                delivery(),
                delivery(state=DeliveryState.SUPPRESSED, reason="silenced"),
                delivery(state=DeliveryState.GROUPED, reason="storm"),
                delivery(state=DeliveryState.PARKED, reason="sink_removed"),
            ),
        )
    )
    reporting.sent(claim(), LATER, timedelta(seconds=1))
    reporting.failed(claim(), REFUSED, DEFERRED)
    reporting.failed(claim(), REFUSED, PARKED)
    for edge, reason in ((Edge.DEGRADED, "sink.failing"), (Edge.RECOVERED, "sink.restored")):
        sink = event(edge, subject=Subject("", name="oncall"), reason=reason)
        reporting.recorded(Record(events=(sink,)))
    for edge, reason in ((Edge.DEGRADED, "queue.filling"), (Edge.RECOVERED, "queue.restored")):
        queue = event(edge, subject=Subject("", uid="queue"), reason=reason)
        reporting.recorded(Record(events=(queue,)))
    fault = Pending(BEGAN, LATER, LATER - BEGAN, "none_available", Severity.CRITICAL, "0 of 3")
    reporting.recorded(Record(debounced=((CHECKOUT, fault),)))
    audit.emit("sink.removed", sink="old", deliveries=3)
    reporting.failed(claim(), REFUSED, Verdict(DeliveryState.DEAD))
    reporting.superseded(claim().delivery, delivery(event(Edge.UPDATED, 1, 2)))
    reporting.expired(claim(), "http_500")
    reporting.watched("c", (Listed("", ()), Broken("", Expired("too old"))))
    reporting.watched("c", (Listed("shop", ()),))
    reporting.watched("c", (Listed("", (), version="289", rewound_from="505"),))
    reporting.probed("c", Probe(Unreachable("refused")))
    reporting.probed("c", Probe(None, "v1.36.3", 0.004))
    reporting.dead_man("nobody has been told")
    reporting.dead_man("")
    reporting.pinged(REFUSED)
    reporting.store_refused(StoreError("disk full"))
    reporting.store_works()
    reporting.leads(True)
    reporting.leads(False)
    reporting.unreadable("phases", "uid")
    audit.emit("store.created", url="sqlite:///watcher.db")
    audit.emit("config.loaded", source="f", clusters=["c"], sinks=["oncall"], told=["oncall"])
    audit.emit("config.reloaded", changed=["sinks"], needs_restart=["web"])
    audit.emit("config.reload_failed", problems=["f: sinks: must be a list"])
    told = delivery()
    audit.emit("sink.redriven", sink="oncall", deliveries=1, at=BEGAN, by="me")
    audit.emit("notification.redriven", delivery=told.id, sink="oncall", at=BEGAN, by="me")
    audit.emit("process.started", version="1", address=":8080")
    audit.emit("process.stopped", reason="asked to")


def documented() -> dict[str, tuple[str, ...]]:
    """The table of docs/audit.md: event → fields."""
    found: dict[str, tuple[str, ...]] = {}
    for name, fields in re.findall(r"^\| `([a-z_.]+)` \|.*\| ?(.*?) ?\|$", DOCS.read_text(), re.M):
        same = re.fullmatch(r"as `([a-z_.]+)`", fields)
        found[name] = found[same[1]] if same else tuple(re.findall(r"`(\w+)`", fields))
    return found


def test_the_docs_have_every_event_and_every_field() -> None:
    assert documented() == dict(audit.FIELDS)


def test_each_event_is_written_with_exactly_its_fields(lines: Lines, reporting: Reporting) -> None:
    """So that whoever reads the log can rely on the table."""
    everything(reporting)
    written = lines()
    assert {line["event"] for line in written} == audit.FIELDS.keys()
    for line in written:
        name = line["event"]
        common = {"ts", "level", "event", "audit"}
        assert line.keys() == common | set(audit.FIELDS[name]), name
        assert line["ts"] == "2026-11-22T14:02:00Z"


def test_an_unknown_field_is_a_mistake_in_the_program(lines: Lines) -> None:
    with pytest.raises(TypeError, match="has no field bogus"):
        audit.emit("process.stopped", bogus=1)
    assert lines() == []


def test_what_is_not_there_is_null(lines: Lines) -> None:
    audit.emit("cluster.listed", cluster="c")
    assert lines()[0].items() >= {"cluster": "c", "scope": None, "deployments": None}.items()


def test_an_opening_tells_who_what_when_and_why(lines: Lines, reporting: Reporting) -> None:
    reporting.recorded(Record(events=(OPENED,), deliveries=(delivery(),)))
    incident, queued = lines()
    assert incident | {"message": ""} == {
        "ts": "2026-11-22T14:02:00Z",
        "level": "info",
        "event": "incident.opened",
        "audit": 1,
        "incident": OPENED.incident,
        "event_id": OPENED.id,
        "sequence": 1,
        "type": "deployment.degraded",
        "cluster": "prod-eu",
        "namespace": "shop",
        "deployment": "checkout",
        "uid": CHECKOUT.uid,
        "severity": "critical",
        "reason": "none_available",
        "message": "",
        "at": "2026-11-22T14:02:30Z",
        "since": "2026-11-22T14:02:00Z",
        "opened_at": "2026-11-22T14:02:30Z",
        "resolution": None,
        "blind_for": None,
    }
    assert (queued["event"], queued["delivery"]) == ("notification.queued", delivery().id)
    assert (queued["due"], queued["sink"]) == ("2026-11-22T14:02:30Z", "oncall")


def test_a_clusters_outage_is_an_incident_of_its_own_type(
    lines: Lines, reporting: Reporting
) -> None:
    reporting.recorded(Record(events=(outage(Edge.RECOVERED, blind_for=90.0),)))
    (line,) = lines()
    assert (line["event"], line["type"]) == ("incident.resolved", "cluster.restored")
    assert (line["blind_for"], line["deployment"]) == (90.0, None)


def test_an_attempt_tells_how_late_and_how_often(lines: Lines, reporting: Reporting) -> None:
    """The second attempt, eight seconds after the commit, took one."""
    reporting.sent(claim(), LATER, timedelta(seconds=1))
    (line,) = lines()
    assert (line["latency"], line["took"], line["attempts"]) == (8.0, 1.0, 2)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param('x\n{"event": "incident.resolved"}', id="a new line"),
        pytest.param("x\r\u2028\u2029\x85\x0b\x0cy", id="every other line break"),
        pytest.param("\x1b[2J\x1b]0;title\x07x", id="terminal escapes"),
        pytest.param("\u202egnp.exe", id="reversed text"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param("\x00", id="NUL"),
        pytest.param("x" * 1_000_000, id="a megabyte"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "people"])
def test_no_text_starts_a_line_or_reaches_the_terminal(
    log: io.StringIO, reporting: Reporting, hostile: str, as_json: bool
) -> None:
    audit.configure(log, "warning", json=as_json)
    reporting.recorded(Record(events=(event(Edge.DEGRADED, message=hostile),)))
    audit.emit("config.loaded", source=hostile, clusters=[hostile])
    logging.getLogger("aiohttp").warning("%s", hostile)
    written = log.getvalue()
    assert len(written.splitlines()) == 3
    assert written.replace("\n", "").isprintable()
    assert len(written) < 20_000
    written.encode()


def test_a_secret_is_hidden_wherever_it_comes_from(lines: Lines, reporting: Reporting) -> None:
    """Also in lines of libraries, and in their tracebacks."""
    hide("https://hooks.example.com/services/T0/B0/audit-secret")
    path = "/services/T0/B0/audit-secret"
    error = SinkError("refused", Outcome.RETRY, detail=f"POST {path} failed")
    reporting.failed(claim(), error, DEFERRED)
    reporting.store_refused(StoreError(path))
    audit.emit("config.loaded", source="f", clusters=[path], sinks=[], told=[])
    logging.getLogger("aiohttp").error("cannot reach %s", path)
    try:
        raise ValueError(path)
    except ValueError:
        logging.getLogger("asyncio").exception("oops")
    written = lines()
    assert len(written) == 5
    assert "audit-secret" not in json.dumps(written)
    assert "ValueError: ***" in written[-1]["exception"]


def test_audit_lines_are_written_whatever_the_level(lines: Lines) -> None:
    audit.emit("process.stopped", reason="asked to")
    logging.getLogger("watcher.cluster").info("chatter")
    assert [line["event"] for line in lines()] == ["process.stopped"]


def test_libraries_do_not_chatter(log: io.StringIO) -> None:
    audit.configure(log, "info", json=True)
    logging.getLogger("alembic").info("chatter")
    logging.getLogger("watcher.cluster").info("news")
    assert [json.loads(line)["event"] for line in log.getvalue().splitlines()] == ["news"]


def test_people_see_only_what_is_there(log: io.StringIO, reporting: Reporting) -> None:
    audit.configure(log, "info", json=False)
    reporting.recorded(Record(events=(OPENED,)))
    assert "incident.opened" in log.getvalue()
    assert "None" not in log.getvalue()


def test_only_a_change_of_the_heartbeat_is_worth_a_line(lines: Lines, reporting: Reporting) -> None:
    answers = [None, None, Unreachable("a"), Unreachable("b"), Throttled("c"), None, None]
    for error in answers:
        reporting.probed("c", Probe(error))
    assert [(line["event"], line.get("reason")) for line in lines()] == [
        ("cluster.probe_failed", "unreachable"),
        ("cluster.probe_failed", "throttled"),
        ("cluster.probe_succeeded", None),
    ]


def test_a_failing_store_is_told_once_and_its_return_too(
    lines: Lines, reporting: Reporting, view: View
) -> None:
    for _ in range(3):
        reporting.store_refused(StoreError("disk full"))
    assert view.store_error == "disk full"
    reporting.recorded(Record())
    assert [line["event"] for line in lines()] == ["store.failing", "store.restored"]
    assert view.store_error is None


def test_a_broken_watch_is_told_once_until_it_was_whole_again(
    lines: Lines, reporting: Reporting
) -> None:
    broken = Broken("", Unreachable("refused"))
    reporting.watched("c", (broken, broken, Listed("", (), reason="unreachable"), broken))
    assert [(line["event"], line["reason"]) for line in lines()] == [
        ("cluster.watch_broken", "unreachable"),
        ("cluster.listed", "unreachable"),
        ("cluster.watch_broken", "unreachable"),
    ]


def test_a_namespace_without_anything_is_told_once_until_it_had_something(
    lines: Lines, reporting: Reporting
) -> None:
    """A name with a mistake in it looks just so; of the whole cluster it would be no mistake."""
    empty, snapshot = Listed("shpo", ()), snapshot_from(deployment("shpo", "a"), "c")
    reporting.watched("c", (empty, empty, Listed("", ()), Applied("shpo", snapshot)))
    reporting.watched("c", (Deleted("shpo", snapshot), empty))
    told = [line for line in lines() if line["event"] == "cluster.namespace_empty"]
    assert [(line["cluster"], line["namespace"], line["level"]) for line in told] == [
        ("c", "shpo", "warning")
    ] * 2
    assert "if there is no such namespace" in told[0]["message"]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"watcher_{name}", labels)


@pytest.mark.usefixtures("lines")
def test_what_is_audited_is_counted(reporting: Reporting, metrics: Metrics) -> None:
    everything(reporting)
    assert value(metrics, "transitions_total", cluster="prod-eu", edge="degraded") == 2
    for outcome in (
        "queued", "suppressed", "grouped", "sent", "deferred", "abandoned", "superseded", "expired",
    ):  # fmt: skip
        assert value(metrics, "notifications_total", sink="oncall", outcome=outcome) == 1, outcome
    assert value(metrics, "notifications_total", sink="oncall", outcome="parked") == 2
    assert value(metrics, "notification_latency_seconds_sum", sink="oncall") == 8
    assert value(metrics, "store_errors_total") == 1


@pytest.mark.usefixtures("lines")
def test_a_parked_sink_shows_until_it_works_again(
    reporting: Reporting, metrics: Metrics, view: View
) -> None:
    assert value(metrics, "sink_parked", sink="oncall") == 0
    reporting.failed(claim(), REFUSED, PARKED)
    assert value(metrics, "sink_parked", sink="oncall") == 1
    assert view.sink_troubles == {"oncall": "bad_token: HTTP 401"}
    reporting.answers("oncall")
    assert value(metrics, "sink_parked", sink="oncall") == 0
    assert view.sink_troubles == {}


@pytest.mark.usefixtures("lines")
def test_a_relist_is_counted_under_what_made_it_necessary(
    reporting: Reporting, metrics: Metrics
) -> None:
    seen = DeploymentSnapshot("c", "shop", "checkout", "u")
    reporting.watched("c", (Listed("", (seen,)), Opened(""), Applied("", seen), Deleted("", seen)))
    expired, withheld = (
        Listed("", (seen,), reason="expired"),
        Listed("", (seen,), reason="withheld"),
    )
    reporting.watched("c", (Broken("", Expired("410")), expired, withheld))
    for reason in ("start", "expired", "withheld"):
        assert value(metrics, "watch_relists_total", cluster="c", reason=reason) == 1
    assert value(metrics, "watch_events_total", cluster="c") == 2


@pytest.mark.usefixtures("lines")
def test_failed_probes_are_counted_by_reason(reporting: Reporting, metrics: Metrics) -> None:
    for error in (Unreachable("refused"), Unreachable("refused"), Expired("410"), None):
        reporting.probed("c", Probe(error))
    assert value(metrics, "probe_failures_total", cluster="c", reason="unreachable") == 2
    assert value(metrics, "probe_failures_total", cluster="c", reason="expired") == 1


@pytest.mark.usefixtures("lines")
def test_a_sink_that_answers_ever_something_else_does_not_fill_the_metrics(
    reporting: Reporting, metrics: Metrics
) -> None:
    reporting.failed(claim(), SinkError("x" * 10_000, Outcome.RETRY), DEFERRED)
    for number in range(1000):
        reporting.failed(claim(), SinkError(f"brand_new_{number}", Outcome.RETRY), DEFERRED)
    text = metrics.render(()).decode()
    series = [line for line in text.splitlines() if line.startswith("watcher_notification_fail")]
    assert len(series) == 51
    assert value(metrics, "notification_failures_total", sink="oncall", reason="other") == 951
    assert max(map(len, series)) < 200
