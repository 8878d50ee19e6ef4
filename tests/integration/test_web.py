"""What the process says of itself over HTTP, asked over real sockets."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from watcher.config.secrets import hide
from watcher.core.delivery import DeliveryState
from watcher.core.events import Incident
from watcher.core.health import assess
from watcher.core.model import Baseline, DeploymentSnapshot, Health, Severity
from watcher.core.phases import Firing
from watcher.core.policy import HealthPolicy
from watcher.errors import ConfigError, Forbidden, StoreError, Unreachable
from watcher.metrics import Metrics
from watcher.ports import Probe, Stream
from watcher.testing.clock import ManualClock
from watcher.view import ClusterView, Tracked, View
from watcher.web import make_app, serve

SCHEMA = Draft202012Validator(json.loads(Path("docs/deployments.schema.json").read_text()))
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(minutes=5)
OUTAGE = Incident("i", NOW, NOW, "unreachable", Severity.CRITICAL, "refused")


class Queue:
    """As much of a store as the web may touch."""

    def __init__(self) -> None:
        self.rows: Sequence[tuple[str, DeliveryState, int, datetime]] = ()
        self.error: StoreError | None = None
        self.hangs = False

    async def queue(self) -> Sequence[tuple[str, DeliveryState, int, datetime]]:
        """What waits to be sent."""
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return self.rows


class World:
    """A view to fill by hand, and a server that shows it."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.view = View()
        self.view.store_error = None
        self.store = Queue()
        self.dead: list[str] = []
        self.metrics = Metrics(self.view, self.clock, ["oncall"])
        self.url = ""
        self.session: aiohttp.ClientSession

    def cluster(self, name: str = "prod", *scopes: str, listed: bool = True) -> ClusterView:
        """Add a cluster: in sight and healthy, if listed."""
        heard = NOW if listed else None
        silent_for = timedelta(seconds=75)
        begun, broken = Counter(start=1, expired=2), Counter(expired=2)
        stream = Stream("17", heard, lists=begun, breaks=broken, bad_lines=1)
        stream.timeout_seconds, stream.shortened_by = 26, "cut"
        stream.obstacle = "something cuts watches off"
        cluster = ClusterView(name, scopes or ("",), lambda _: stream, silent_for, BEFORE)
        if listed:
            for scope in cluster.scopes.values():
                scope.listed_at, scope.open = BEFORE, True
            cluster.complete_at, cluster.blind_since = BEFORE, None
            cluster.reason, cluster.version = "connected", "v1.36.3"
            cluster.probe, cluster.probed_at = Probe(None, "v1.36.3", 0.004), NOW
        self.view.clusters[name] = cluster
        return cluster

    async def get(self, path: str, status: int = 200) -> Any:  # noqa: ANN401 - any JSON
        """Ask for a page, and check what all answers have in common."""
        async with self.session.get(self.url + path) as answer:
            body = await answer.text()
            assert answer.status == status, body
            assert answer.content_type == "application/json"
            assert answer.headers["Cache-Control"] == "no-store"
            if status == 200 and path.startswith("/health/deployments"):
                SCHEMA.validate(json.loads(body))
            return json.loads(body)

    async def scrape(self) -> dict[str, float]:
        """The metrics, by the name that has the labels in it."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(number) for name, number in pairs}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    store: Any = world.store
    app = make_app(world.view, store, world.metrics, world.clock, lambda: world.dead)
    runner = await serve(app, "127.0.0.1:0")
    world.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession() as world.session:
        yield world
    await runner.cleanup()


def track(
    cluster: ClusterView,
    name: str,
    ready: int = 3,
    namespace: str = "shop",
    desired: int = 3,
    malformed: str = "",
    available: int | None = None,
) -> Tracked:
    """Add a Deployment whose rollout is over."""
    snapshot = DeploymentSnapshot(
        cluster.name, namespace, name, f"{namespace}/{name}", desired=desired, revision=2,
        replicas=desired, updated=desired, ready=ready, malformed=malformed,
        available=ready if available is None else available,
    )  # fmt: skip
    verdict = assess(snapshot, Baseline(), NOW, HealthPolicy())
    tracked = Tracked("", snapshot, verdict, Baseline(), BEFORE)
    cluster.tracked[snapshot.uid] = tracked
    return tracked


async def test_it_lives_while_its_loops_do(world: World) -> None:
    """An API server that is down is no reason for a restart, a dead loop is."""
    world.cluster(listed=False).probe = Probe(Unreachable("refused"))
    world.view.store_error = "disk full"
    assert await world.get("/healthz") == {"status": "ok"}
    world.dead.append("sink oncall")
    assert await world.get("/healthz", 503) == {"status": "error", "dead_loops": ["sink oncall"]}


async def test_it_is_ready_with_store_and_first_list(world: World) -> None:
    cluster = world.cluster(listed=False)
    world.view.store_error = "disk full"
    answer = await world.get("/readyz", 503)
    assert answer["reasons"] == ["store: disk full", "cluster prod: the first list is not in yet"]
    cluster.complete_at = cluster.scopes[""].listed_at = NOW
    world.view.store_error = None
    assert await world.get("/readyz") == {"status": "ok", "role": "standby"}
    world.view.leading = True
    assert await world.get("/readyz") == {"status": "ok", "role": "writer"}


async def test_it_is_not_ready_with_a_view_that_is_too_old(world: World) -> None:
    """W35: what nobody confirmed for three times the silence that a stream may keep is said to be old."""
    cluster = world.cluster()
    cluster.scopes[""].open = False
    cluster.scopes[""].error = Unreachable("connection refused")
    cluster.blind_since = NOW
    world.clock.set(NOW + timedelta(seconds=225))
    assert (await world.get("/readyz"))["status"] == "ok"
    world.clock.set(NOW + timedelta(seconds=226))
    (reason,) = (await world.get("/readyz", 503))["reasons"]
    assert reason == "cluster prod: what is shown is 226 s old: connection refused"


async def test_not_ready_says_which_right_is_missing(world: World) -> None:
    cluster = world.cluster(listed=False)
    cluster.scopes[""].error = Forbidden("list deployments at the cluster scope: forbidden")
    (reason,) = (await world.get("/readyz", 503))["reasons"]
    assert reason == "cluster prod: list deployments at the cluster scope: forbidden"


async def test_the_apiserver_is_as_the_last_heartbeat_found_it(world: World) -> None:
    cluster = world.cluster()
    track(cluster, "web")
    stream = {
        "scope": "", "open": True, "error": None, "deployments": 1, "resource_version": "17",
        "last_byte_at": "2026-11-22T12:00:00Z", "last_bookmark_at": None,
        "lists": {"start": 1, "expired": 2}, "breaks": {"expired": 2}, "bad_lines": 1,
        "rewinds": 0, "rewound_at": None,
        "timeout_seconds": 26, "shortened_by": "cut", "obstacle": "something cuts watches off",
    }  # fmt: skip
    ok = {"status": "ok", "version": "v1.36.3", "checked_at": "2026-11-22T12:00:00Z"}
    assert await world.get("/health/apiserver") == {**ok, "streams": [stream]}
    cluster.probe = Probe(Unreachable("connection refused"))
    answer = await world.get("/health/apiserver", 500)
    assert (answer["status"], answer["error"]) == ("error", "connection refused")


async def test_an_apiserver_not_probed_yet_is_not_called_well(world: World) -> None:
    world.cluster(listed=False)
    assert (await world.get("/health/apiserver", 500))["error"] == "not probed yet"


async def test_of_several_apiservers_the_worst_counts(world: World) -> None:
    world.cluster("a")
    world.cluster("b").probe = Probe(Unreachable("refused"))
    answer = await world.get("/health/apiserver", 500)
    assert answer["status"] == "error"
    assert [(c["cluster"], c["status"]) for c in answer["clusters"]] == [
        ("a", "ok"),
        ("b", "error"),
    ]
    assert (await world.get("/health/apiserver?cluster=a"))["status"] == "ok"
    await world.get("/health/apiserver?cluster=b", 500)


async def test_deployments_are_shown_with_numbers_and_verdict(world: World) -> None:
    cluster = world.cluster()
    track(cluster, "web")
    track(cluster, "checkout", ready=1)
    answer = await world.get("/health/deployments")
    assert list(answer) == ["status", "as_of", "summary", "deployments"]
    assert answer["as_of"] == "2026-11-22T12:00:00Z"
    assert answer["summary"] == dict.fromkeys(Health, 0) | {"healthy": 1, "degraded": 1}
    assert [row["name"] for row in answer["deployments"]] == ["checkout", "web"]
    assert answer["deployments"][0] == {
        "cluster": "prod",
        "namespace": "shop",
        "name": "checkout",
        "status": "degraded",
        "desired": 3,
        "ready": 1,
        "available": 1,
        "updated": 3,
        "health": "degraded",
        "reason": "below_minimum",
        "message": "1 of 3 replicas available, 3 needed",
        "since": "2026-11-22T11:55:00Z",
    }


async def test_an_annotation_that_cannot_be_read_is_shown_and_counted(world: World) -> None:
    """Whoever wrote it finds out before the page that it was to keep back."""
    tracked = track(world.cluster(), "web")
    tracked.snapshot = replace(tracked.snapshot, annotations={"degraded-for": "five"})
    (row,) = (await world.get("/health/deployments"))["deployments"]
    assert "; annotation ignored: degraded-for: " in row["message"]
    assert (await world.scrape())['watcher_annotation_problems{cluster="prod"}'] == 1


@pytest.mark.parametrize(
    ("ready", "desired", "malformed", "row", "whole"),
    [
        pytest.param(3, 3, "", "ok", "ok", id="all ready"),
        pytest.param(4, 3, "", "ok", "ok", id="more than wanted"),
        pytest.param(2, 3, "", "degraded", "degraded", id="one short"),
        pytest.param(0, 0, "", "ok", "ok", id="none wanted"),
        pytest.param(3, 3, "no spec", "unknown", "unknown", id="malformed"),
    ],
)
async def test_status_is_the_plain_comparison(
    world: World, ready: int, desired: int, malformed: str, row: str, whole: str
) -> None:
    track(world.cluster(), "web", ready, desired=desired, malformed=malformed)
    answer = await world.get("/health/deployments")
    assert (answer["deployments"][0]["status"], answer["status"]) == (row, whole)


async def test_ready_is_what_counts_for_status(world: World) -> None:
    """Pods that wait out minReadySeconds are ready, and not available yet."""
    track(world.cluster(), "web", ready=3, available=0)
    assert (await world.get("/health/deployments"))["deployments"][0]["status"] == "ok"


async def test_out_of_sight_nothing_is_known_but_the_last_numbers(world: World) -> None:
    """P4: nothing is inferred from silence."""
    cluster = world.cluster()
    track(cluster, "web", ready=1)
    world.clock.set(NOW + timedelta(seconds=76))  # the stream has been silent for longer than 75 s
    answer = await world.get("/health/deployments")
    assert answer["status"] == "unknown"
    assert answer["as_of"] == "2026-11-22T12:00:00Z"
    assert answer["summary"]["unknown"] == 1
    (row,) = answer["deployments"]
    assert (row["ready"], row["desired"], row["health"]) == (1, 3, "unknown")


async def test_an_announced_outage_makes_its_deployments_unknown(world: World) -> None:
    cluster = world.cluster("b")
    track(cluster, "web")
    cluster.phase, cluster.reason = Firing(OUTAGE), "unreachable"
    track(world.cluster("a"), "web")
    answer = await world.get("/health/deployments")
    assert answer["status"] == "unknown"
    healths = [(row["cluster"], row["health"], row["reason"]) for row in answer["deployments"]]
    assert healths == [("a", "healthy", ""), ("b", "unknown", "unreachable")]
    assert (await world.get("/health/deployments?cluster=a"))["status"] == "ok"


async def test_before_the_first_list_there_is_no_answer(world: World) -> None:
    """An empty list would say that there is nothing."""
    world.cluster("a")
    world.cluster("b", listed=False)
    answer = await world.get("/health/deployments", 503)
    assert answer == {"status": "unknown", "error": "the first list is not in yet: b"}
    assert (await world.get("/health/deployments?cluster=a"))["deployments"] == []


async def test_one_namespace_of_one_cluster(world: World) -> None:
    cluster = world.cluster("a")
    track(cluster, "web", ready=0)
    track(cluster, "api", namespace="pay")
    track(world.cluster("b"), "api", namespace="pay", ready=0)
    answer = await world.get("/health/deployments?namespace=pay&cluster=a")
    assert (answer["status"], [row["name"] for row in answer["deployments"]]) == ("ok", ["api"])
    assert len((await world.get("/health/deployments?namespace=pay"))["deployments"]) == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/health/deployments?cluster=nowhere", "no cluster is called 'nowhere'"),
        ("/health/apiserver?cluster=nowhere", "no cluster is called 'nowhere'"),
        ("/health/deployments?namespace=other", "the namespace 'other' is not watched"),
        ("/nothing", "404: Not Found"),
        ("/health/deployments?cluster=%0a%1b[31m%22", "no cluster is called '\"'"),
    ],
)
async def test_what_is_not_there_is_a_404_in_json(world: World, path: str, words: str) -> None:
    world.cluster("prod", "shop", "pay")
    assert await world.get(path, 404) == {"status": "error", "error": words}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/health/deployments", "/metrics"])
async def test_nothing_can_be_changed(world: World, path: str) -> None:
    """GET and HEAD only."""
    world.cluster()
    async with world.session.head(world.url + path) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        async with world.session.request(method, world.url + path, data=b"x" * 5000) as answer:
            assert answer.status == 405
            assert answer.content_type == "application/json"


@pytest.mark.parametrize(
    "request_line",
    [
        pytest.param(b"BREW /healthz HTTP/1.1\r\n", id="no method"),
        pytest.param(b"GET /healthz?x=" + b"y" * 9000 + b" HTTP/1.1\r\n", id="too long"),
        pytest.param(b"\x16\x03\x01\x00\xa5\x01\x00\r\n", id="TLS"),
    ],
)
async def test_what_is_no_request_is_refused_and_fills_no_log(
    world: World, caplog: pytest.LogCaptureFixture, request_line: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]))
    writer.write(request_line + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.0 400")
    writer.close()
    await writer.wait_closed()
    assert caplog.records == []


async def test_errors_of_the_server_show_no_secret_and_stay_one_line(world: World) -> None:
    hide("web-secret-token")
    world.cluster().probe = Probe(Unreachable("GET /?t=web-secret-token\x1b[31m\nfailed"))
    assert (await world.get("/health/apiserver", 500))["error"] == "GET /?t=*** failed"


async def test_the_metrics_say_how_things_stand(world: World) -> None:
    cluster = world.cluster()
    track(cluster, "web")
    track(cluster, "checkout", ready=0).phase = Firing(OUTAGE)
    dark = world.cluster("dark", listed=False)
    dark.probe, dark.phase = Probe(Unreachable("refused")), Firing(OUTAGE)
    track(dark, "web")
    world.store.rows = [
        ("oncall", DeliveryState.PENDING, 3, NOW - timedelta(seconds=40)),
        ("oncall", DeliveryState.PARKED, 1, NOW - timedelta(seconds=90)),
    ]
    told = await world.scrape()
    for name, number in {
        'watcher_apiserver_up{cluster="prod"}': 1,
        'watcher_apiserver_up{cluster="dark"}': 0,
        'watcher_probe_duration_seconds{cluster="prod"}': 0.004,
        'watcher_view_fresh{cluster="prod"}': 1,
        'watcher_view_fresh{cluster="dark"}': 0,
        'watcher_view_age_seconds{cluster="prod"}': 0,
        'watcher_deployments{cluster="prod",health="healthy"}': 1,
        'watcher_deployments{cluster="prod",health="degraded"}': 1,
        'watcher_deployments{cluster="prod",health="paused"}': 0,
        'watcher_incidents_open{cluster="prod",severity="critical"}': 1,
        'watcher_deployments{cluster="dark",health="healthy"}': 0,
        'watcher_deployments{cluster="dark",health="unknown"}': 1,
        'watcher_incidents_open{cluster="dark",severity="critical"}': 1,
        'watcher_incidents_open{cluster="dark",severity="warning"}': 0,
        'watcher_deliveries_pending{sink="oncall",state="pending"}': 3,
        'watcher_deliveries_pending{sink="oncall",state="parked"}': 1,
        'watcher_delivery_oldest_seconds{sink="oncall"}': 90,
        'watcher_sink_parked{sink="oncall"}': 0,
        "watcher_config_last_reload_successful": 1,
        'watcher_watch_silence_seconds{cluster="prod",scope=""}': 0,
        'watcher_watch_breaks_total{cluster="prod",reason="expired",scope=""}': 2,
        'watcher_watch_bad_lines_total{cluster="prod",scope=""}': 1,
        'watcher_watch_timeout_seconds{cluster="prod",scope=""}': 26,
        'watcher_watch_obstructed{cluster="prod",reason="cut",scope=""}': 1,
    }.items():
        assert told[name] == number, name
    assert 'watcher_view_age_seconds{cluster="dark"}' not in told
    assert any(name.startswith("watcher_build_info{version=") for name in told)
    world.store.rows = []
    assert not any(name.startswith("watcher_deliveries_pending") for name in await world.scrape())


OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.7,"
    "application/openmetrics-text;version=0.0.1;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
)
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.8,"
SCRAPERS = [
    pytest.param(PROMETHEUS_2, f"{OPEN}; escaping=underscores", id="Prometheus 2"),
    pytest.param(PROMETHEUS_3, f"{OPEN}; escaping=allow-utf-8", id="Prometheus 3"),
    pytest.param(PROTOBUF + PROMETHEUS_3, f"{OPEN}; escaping=allow-utf-8", id="native histograms"),
    pytest.param("application/openmetrics-text", OPEN, id="any version"),
    pytest.param("text/plain;version=0.0.4;q=0.3,application/openmetrics-text;version=1.0.0;q=0.5",
        f"{OPEN}; escaping=underscores", id="weights count, not the order"),
    pytest.param("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4", PLAIN,
        id="text preferred"),
    pytest.param("application/openmetrics-text;version=1.0.0;q=0,*/*;q=0.1", PLAIN, id="refused"),
    pytest.param("application/openmetrics-text;version=9.0.0,*/*", PLAIN, id="of a later version"),
    pytest.param("application/openmetrics-text;version=x;q=y,,;;,text/plain;version=", PLAIN,
        id="nonsense"),
    pytest.param("*/*", PLAIN, id="a person's curl"),
    pytest.param(None, PLAIN, id="nothing asked for"),
    pytest.param("image/png", PLAIN, id="nothing that there is"),
]  # fmt: skip


@pytest.mark.parametrize(("accept", "kind"), SCRAPERS)
async def test_a_scraper_gets_the_format_it_prefers(
    world: World, accept: str | None, kind: str
) -> None:
    """OpenMetrics as its own parser has it, or the plain text: the same numbers in both."""
    track(world.cluster(), "web")
    world.metrics.queue_fill.set(math.nan)
    world.metrics.failed("oncall", 'http_500 "\n')
    skip = {"Accept": accept} if accept else None
    url, auto = f"{world.url}/metrics", ["Accept"] if accept is None else []
    async with world.session.get(url, headers=skip, skip_auto_headers=auto) as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"] == kind
        assert "Accept" in answer.headers["Vary"]
    parse = openmetrics if kind.startswith(OPEN) else plain
    found = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse(text)
        for s in family.samples
    }
    deployments = (("cluster", "prod"), ("health", "healthy"))
    assert found["watcher_deployments", deployments] == 1
    failures = (("reason", 'http_500 "\n'), ("sink", "oncall"))
    assert found["watcher_notification_failures_total", failures] == 1
    assert math.isnan(found["watcher_queue_fill_ratio", ()])
    assert not any(name.endswith("_created") for name, _ in found)


@pytest.mark.parametrize(("encodings", "packed"), [("gzip", "gzip"), ("identity", None)])
async def test_a_scrape_is_packed_where_that_is_asked_for(
    world: World, encodings: str, packed: str | None
) -> None:
    track(world.cluster(), "web")
    headers = {"Accept-Encoding": encodings, "Accept": PROMETHEUS_3}
    async with world.session.get(f"{world.url}/metrics", headers=headers) as answer:
        assert answer.headers.get("Content-Encoding") == packed
        assert (await answer.text()).endswith("# EOF\n")


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_a_store_in_trouble_leaves_the_other_metrics(world: World, how: str) -> None:
    world.cluster()
    world.store.error = StoreError("disk full") if how == "fails" else None
    world.store.hangs = how == "hangs"
    told = await world.scrape()
    assert told['watcher_view_fresh{cluster="prod"}'] == 1
    assert told["watcher_store_errors_total"] == 1


async def test_ten_thousand_deployments_are_answered_whole(world: World) -> None:
    cluster = world.cluster()
    for number in range(10_000):
        track(cluster, f"web-{number}", ready=3 if number % 2 else 2)
    answer = await world.get("/health/deployments")
    assert len(answer["deployments"]) == 10_000
    assert answer["summary"]["healthy"] == 5_000


async def test_a_port_in_use_is_told_in_one_line(world: World) -> None:
    port = world.url.rpartition(":")[2]
    with pytest.raises(ConfigError) as caught:
        await serve(web.Application(), f"127.0.0.1:{port}")
    (problem,) = caught.value.problems
    assert problem.startswith(f"web.address: cannot listen on 127.0.0.1:{port}: ")
    assert "address already in use" in problem.lower()


async def test_many_silent_connections(world: World) -> None:
    """Whoever opens hundreds of connections and says nothing loses the oldest; a probe is answered."""
    host, port = world.url.removeprefix("http://").split(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(150)]
    assert (await world.get("/healthz"))["status"] == "ok"
    # one more for the probe itself
    ended = await asyncio.gather(*(reader.read(1) for reader, _ in opened[:51]))
    assert ended == [b""] * 51
    assert not any(reader.at_eof() for reader, _ in opened[51:])
    for _, writer in opened:
        writer.close()
    gone = [writer.wait_closed() for _, writer in opened]
    await asyncio.gather(*gone, return_exceptions=True)
