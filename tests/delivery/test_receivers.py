"""PagerDuty, receivers of Alertmanager's webhooks, and what else a machine may want."""

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from tests.controlplane.receivers import VALIDATOR
from tests.delivery.rig import CRITICAL, WARNING, Recording, rig
from tests.deployments import ZERO
from tests.events import event, notification, outage
from tests.fault_server import Behaviour, FaultServer, answers, resets
from watcher.clock import SystemClock
from watcher.core.delivery import Outcome, Part
from watcher.core.events import Edge, Event, Facts
from watcher.core.model import Json, Subject
from watcher.errors import ConfigError, SinkError
from watcher.ports import Notification
from watcher.sinks.apprise import Apprise
from watcher.sinks.http import Sender
from watcher.sinks.pagerduty import PagerDuty
from watcher.sinks.webhook import Webhook
from watcher.testing.clock import ManualClock

KEY = "a" * 32
ACCEPTED = answers(202, b'{"status":"success","dedup_key":"x"}')
AN_ID = re.compile(r"[0-9a-f-]{36}")


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(ACCEPTED) as made:
        yield made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(ZERO)


def pager(server: FaultServer, clock: ManualClock) -> PagerDuty:
    return PagerDuty(
        "pager", Sender(clock), routing_key=lambda: KEY, url=f"{server.url}/v2/enqueue"
    )


def bodies(server: FaultServer) -> list[Json]:
    return [json.loads(request.body) for request in server.requests]


def actions(server: FaultServer) -> list[str]:
    return [body["event_action"] for body in bodies(server)]


async def test_the_trigger_comes_before_the_resolve(
    tmp_path: Path, clock: ManualClock, server: FaultServer
) -> None:
    """Row 41: however often the trigger fails, the resolve waits for it, under the same key."""
    server.script = [answers(500), resets, answers(429, b"", retry_after="5"), answers(502), resets]
    async with rig(tmp_path, pager(server, clock), clock=clock) as it:
        await it.opens("web")
        await it.ends("web")
        await it.passes(120)
    assert actions(server) == ["trigger"] * 6 + ["resolve"]
    assert len({body["dedup_key"] for body in bodies(server)}) == 1


async def test_what_opens_again_is_another_pagerduty_incident(
    tmp_path: Path, clock: ManualClock, server: FaultServer
) -> None:
    """Row 42: a key is never used again after its resolve."""
    async with rig(tmp_path, pager(server, clock), clock=clock) as it:
        for _ in range(2):
            await it.opens("web")
            await it.ends("web")
            await it.passes(10)
    first, _, second, _ = (body["dedup_key"] for body in bodies(server))
    assert actions(server) == ["trigger", "resolve"] * 2
    assert first != second
    assert AN_ID.fullmatch(first)


async def test_what_pagerduty_is_told(
    tmp_path: Path, clock: ManualClock, server: FaultServer
) -> None:
    """Where, how bad, since when, why, and the numbers."""
    async with rig(tmp_path, pager(server, clock), clock=clock) as it:
        await it.opens("web", severity=WARNING)
        await it.changes("web")
        await it.passes()
        await it.ends("web")
        await it.passes()
    trigger, worse, resolve = bodies(server)
    payload = trigger.pop("payload")
    assert trigger == {
        "routing_key": KEY, "event_action": "trigger", "dedup_key": resolve["dedup_key"],
        "client": "deployment-watcher",
    }  # fmt: skip
    details = payload.pop("custom_details")
    assert payload.pop("summary").startswith("Unavailable: Deployment shop/web in prod since")
    assert payload == {
        "source": "prod/shop/web", "severity": "warning", "timestamp": "2026-01-01T00:00:00Z",
        "component": "web", "group": "shop", "class": "none_available",
    }  # fmt: skip
    assert (details["desired"], details["available"]) == (3, 0)
    assert worse["payload"]["severity"] == "critical"
    assert "payload" not in resolve


HUGE = Facts(desired=5000, floor=1, updated=0, ready=0, available=0)
LIMITS = {
    "a megabyte": event(Edge.DEGRADED, message="x" * 2**20),
    "a megabyte of emoji": event(Edge.DEGRADED, message="😀" * 2**18),
    "a long name": event(Edge.DEGRADED, subject=Subject("c" * 63, "n" * 63, "d" * 253, "u")),
    "an odd cluster": outage(Edge.DEGRADED, message="\x00\ud800\u202e\n" * 9999, facts=HUGE),
}


@pytest.mark.parametrize("told", LIMITS.values(), ids=LIMITS.keys())
async def test_pagerdutys_limits_are_kept(
    clock: ManualClock, server: FaultServer, told: Event
) -> None:
    """A summary of 1,024 characters, 512 KB altogether, whatever a cluster says."""
    await pager(server, clock).send(notification(told))
    (body,) = bodies(server)
    assert len(body["payload"]["summary"]) <= 1024
    assert len(body["dedup_key"]) <= 255
    assert len(server.requests[0].body) < 512 * 1024
    assert body["payload"]["summary"].isprintable()


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (answers(400, b'{"errors":["Invalid routing key"]}'), Outcome.PARK, "invalid_routing_key"),
        (
            answers(400, b'{"errors":["payload.source is missing"]}'),
            Outcome.BAD_PAYLOAD,
            "http_400",
        ),
        (answers(429, b"{}"), Outcome.THROTTLED, "rate_limited"),
        (answers(200, b"<html>"), Outcome.RETRY, "bad_answer"),
        (answers(500), Outcome.RETRY, "http_500"),
    ],
    ids=["routing key", "payload", "429", "captive proxy", "500"],
)
async def test_what_pagerduty_says(
    clock: ManualClock, server: FaultServer, answer: Behaviour, outcome: Outcome, reason: str
) -> None:
    """Only a 202 is an acceptance; a key it does not know needs a human and drops nothing."""
    server.usual = answer
    with pytest.raises(SinkError) as caught:
        await pager(server, clock).send(notification(event(Edge.DEGRADED)))
    assert (caught.value.outcome, caught.value.reason) == (outcome, reason)
    assert KEY not in str(caught.value)


async def test_a_test_for_pagerduty_is_resolved_at_once(
    clock: ManualClock, server: FaultServer
) -> None:
    """`test-notify` leaves nothing open."""
    told = event(Edge.DEGRADED, subject=Subject("", name="pager"), reason="test")
    await pager(server, clock).send(notification(told))
    assert actions(server) == ["trigger", "resolve"]


def hook(server: FaultServer, clock: ManualClock, **more: Any) -> Webhook:  # noqa: ANN401
    return Webhook("hook", Sender(clock), url=lambda: server.url, **more)


async def test_alertmanagers_webhook(
    tmp_path: Path, clock: ManualClock, server: FaultServer
) -> None:
    """Row 62: the fields of version 4; firing and resolved share fingerprint, group and start."""
    async with rig(tmp_path, hook(server, clock, alertmanager=True), clock=clock) as it:
        await it.opens("web", severity=WARNING)
        await it.passes(60)
        await it.changes("web")
        await it.passes(60)
        await it.ends("web")
        await it.passes()
    opened, worse, ended = bodies(server)
    keys = "version groupKey truncatedAlerts status receiver groupLabels commonLabels"
    keys += " commonAnnotations externalURL alerts"
    assert set(opened) == set(keys.split())
    assert (opened["version"], opened["receiver"]) == ("4", "hook")
    assert [body["status"] for body in (opened, worse, ended)] == ["firing", "firing", "resolved"]
    alerts = [body["alerts"][0] for body in (opened, worse, ended)]
    assert {(a["fingerprint"], a["startsAt"]) for a in alerts} == {
        (alerts[0]["fingerprint"], "2026-01-01T00:00:00Z")
    }
    assert len({body["groupKey"] for body in (opened, worse, ended)}) == 1
    assert [a["endsAt"] for a in alerts] == ["0001-01-01T00:00:00Z"] * 2 + ["2026-01-01T00:02:00Z"]
    assert [a["labels"]["severity"] for a in alerts] == ["warning", "critical", "critical"]
    assert alerts[0]["labels"] == {
        "alertname": "DeploymentDegraded", "cluster": "prod", "namespace": "shop",
        "deployment": "web", "severity": "warning",
    }  # fmt: skip
    assert alerts[2]["annotations"]["summary"] == "Recovered after 2 min: shop/web in prod"
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_headers_of_ones_own(clock: ManualClock, server: FaultServer) -> None:
    """They are read anew for each attempt, and cannot take the place of ours."""
    values = iter(["first", "second"])
    sink = hook(server, clock, headers={"X-Team": lambda: "web", "Authorization": values.__next__})
    server.usual = answers(204)
    for _ in range(2):
        await sink.send(notification(event(Edge.DEGRADED)))
    assert [request.headers["authorization"] for request in server.requests] == ["first", "second"]
    assert server.requests[0].headers["x-team"] == "web"
    assert server.requests[0].headers["content-type"].startswith("application/cloudevents+json")


async def test_a_secret_is_rotated(clock: ManualClock) -> None:
    """Row 49: with old and new at once either receiver verifies; then with the new alone."""
    old, new = "whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8
    secrets = [lambda: old, lambda: new]
    now = ManualClock(SystemClock().wall())
    async with FaultServer(answers(204)) as server:
        for some in (secrets, secrets[1:]):
            sink = hook(server, now, secrets=some)
            await sink.send(notification(event(Edge.DEGRADED)))
    both, one = server.requests
    for secret in (old, new):
        Verifier(secret).verify(both.body, dict(both.headers))
    Verifier(new).verify(one.body, dict(one.headers))
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(old).verify(one.body, dict(one.headers))


async def test_a_failing_sink_is_a_cloud_event_too(tmp_path: Path, clock: ManualClock) -> None:
    """What machines are told of another sink keeps to the published schema."""

    class Parked(Recording):
        async def send(self, notification: Notification) -> Json | None:
            if clock.now() < ZERO.replace(minute=10):
                raise SinkError("invalid_auth", Outcome.PARK)
            return None

    async with (
        FaultServer(answers(204)) as server,
        rig(tmp_path, Parked("oncall"), hook(server, clock), clock=clock) as it,
    ):
        await it.opens("web", severity=CRITICAL)
        await it.passes(900)
    told = {body["type"]: body for body in bodies(server)}
    for body in told.values():
        VALIDATOR.validate(body)
    failing = told["dev.deployment-watcher.sink.failing.v1"]
    assert (failing["source"], failing["subject"]) == ("/watcher", "sinks/oncall")
    assert "dev.deployment-watcher.sink.restored.v1" in told


async def test_apprise_says_yes_or_no(clock: ManualClock) -> None:
    """A refusal is tried again, a service that it does not know needs a human."""
    told = notification(event(Edge.DEGRADED), Part.POST)
    async with FaultServer(answers(200)) as server:
        sink = Apprise("any", url=lambda: server.url.replace("http", "json"))
        await sink.send(told)
        (body,) = bodies(server)
        assert body["type"] == "failure"
        assert body["title"] == "🔴 Unavailable: shop/checkout in prod-eu"
        server.usual = answers(500)
        with pytest.raises(SinkError) as caught:
            await sink.send(told)
        assert (caught.value.outcome, caught.value.reason) == (Outcome.RETRY, "not_sent")
    with pytest.raises(SinkError) as caught:
        await Apprise("any", url=lambda: "no-such-service://secret").send(told)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.PARK, "bad_url")


def test_apprise_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the configuration is refused, with the command that helps."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(
        ConfigError, match=r"sinks: any: .*pip install 'deployment-watcher\[apprise\]'"
    ):
        Apprise("any", url=lambda: "json://localhost")
