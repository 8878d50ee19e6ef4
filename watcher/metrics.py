"""Every Prometheus metric: what happened is counted, how things stand is read from the view."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watcher import __version__
from watcher.core.model import Clearing, DeliveryState, Firing, Health, Severity
from watcher.ports import Clock
from watcher.view import ClusterView, View

_LATENCIES: Final = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600, 86_400)
_REASONS: Final = 50
"""Different reasons of one metric; further ones are `other`: a sink may answer anything."""


class Metrics:
    """All of them on a registry of their own."""

    def __init__(self, view: View, clock: Clock, sinks: Sequence[str] = ()) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._clock = clock
        self._reasons: set[str] = set()
        self.transitions = Counter(
            "watcher_transitions",
            "Recorded edges of incidents",
            ["cluster", "edge"],
            registry=registry,
        )
        self.notifications = Counter(
            "watcher_notifications",
            "What became of notifications",
            ["sink", "outcome"],
            registry=registry,
        )
        self.failures = Counter(
            "watcher_notification_failures",
            "Attempts that failed",
            ["sink", "reason"],
            registry=registry,
        )
        self.latency = Histogram(
            "watcher_notification_latency_seconds",
            "From the commit of an edge to its delivery",
            ["sink"],
            buckets=_LATENCIES,
            registry=registry,
        )
        self.pending = Gauge(
            "watcher_deliveries_pending", "Open deliveries", ["sink", "state"], registry=registry
        )
        self.oldest = Gauge(
            "watcher_delivery_oldest_seconds",
            "Age of the oldest open delivery",
            ["sink"],
            registry=registry,
        )
        self.sink_parked = Gauge(
            "watcher_sink_parked", "Whether a sink waits for a human", ["sink"], registry=registry
        )
        self.relists = Counter(
            "watcher_watch_relists", "Complete lists", ["cluster", "reason"], registry=registry
        )
        self.watch_events = Counter(
            "watcher_watch_events", "Changes that the watch showed", ["cluster"], registry=registry
        )
        self.store_errors = Counter(
            "watcher_store_errors", "Operations that the store refused", registry=registry
        )
        self.config_loaded = Gauge(
            "watcher_config_last_reload_successful",
            "Whether the newest configuration is in force",
            registry=registry,
        )
        Info("watcher_build", "The running version", registry=registry).info(
            {"version": __version__}
        )
        self.config_loaded.set(1)
        for sink in sinks:
            self.sink_parked.labels(sink).set(0)
        ProcessCollector(registry=registry)
        registry.register(_Standing(view, clock))

    def failed(self, sink: str, reason: str) -> None:
        """Count a failed attempt; reasons beyond the fiftieth are `other`."""
        if reason not in self._reasons and len(self._reasons) < _REASONS and len(reason) <= 64:
            self._reasons.add(reason)
        self.failures.labels(sink, reason if reason in self._reasons else "other").inc()

    def render(self, queue: Iterable[tuple[str, DeliveryState, int, datetime]] | None) -> bytes:
        """The text for a scrape; `queue` is what the store says of it, None when it says nothing."""
        self.pending.clear()
        self.oldest.clear()
        now = self._clock.now()
        oldest: dict[str, datetime] = {}
        for sink, state, count, recorded_at in queue or ():
            self.pending.labels(sink, state).set(count)
            oldest[sink] = min(recorded_at, oldest.get(sink, recorded_at))
        for sink, recorded_at in oldest.items():
            self.oldest.labels(sink).set(max(now - recorded_at, timedelta(0)).total_seconds())
        return generate_latest(self.registry)


class _Standing(Collector):
    """How every cluster stands at the moment of a scrape."""

    def __init__(self, view: View, clock: Clock) -> None:
        self._view = view
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"watcher_{name}", meaning, labels=("cluster", *labels))

        up = gauge("apiserver_up", "Whether the last probe succeeded")
        latency = gauge("probe_duration_seconds", "How long the last probe took")
        fresh = gauge("view_fresh", "Whether verdicts are passed")
        age = gauge("view_age_seconds", "Since when what is shown may be out of date")
        incidents = gauge("incidents_open", "Announced and not ended", "severity")
        deployments = gauge("deployments", "Followed Deployments", "health")
        now = self._clock.now()
        for name, cluster in self._view.clusters.items():
            if cluster.probe is not None:
                up.add_metric([name], cluster.probe.error is None)
                latency.add_metric([name], cluster.probe.latency)
            fresh.add_metric([name], cluster.fresh(now))
            if (as_of := cluster.as_of(now)) is not None:
                age.add_metric([name], (now - as_of).total_seconds())
            severities = _severities(cluster)
            for severity in Severity:
                incidents.add_metric([name, severity], severities[severity])
            healths = _healths(cluster, now)
            for health in Health:
                deployments.add_metric([name, health], healths[health])
        yield from (up, latency, fresh, age, incidents, deployments)


def _severities(cluster: ClusterView) -> Tally[Severity]:
    phases = (cluster.phase, *(tracked.phase for tracked in cluster.tracked.values()))
    return Tally(p.incident.severity for p in phases if isinstance(p, Firing | Clearing))


def _healths(cluster: ClusterView, now: datetime) -> Tally[Health]:
    """Nothing is known of a cluster that is out of sight."""
    if not cluster.fresh(now):
        return Tally({Health.UNKNOWN: len(cluster.tracked)})
    return Tally(tracked.verdict.health for tracked in cluster.tracked.values())
