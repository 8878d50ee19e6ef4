"""Every Prometheus metric: what happened is counted, how things stand is read from the view."""

import math
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Final

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watcher import __version__
from watcher.core import annotations
from watcher.core.model import Health, Severity
from watcher.core.phases import Clearing, Firing
from watcher.pipes import Log
from watcher.ports import Clock, Queued
from watcher.view import View

_LATENCIES: Final = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600, 86_400)
_REASONS: Final = 50
"""Different reasons of one metric; further ones are `other`: a sink may answer anything."""
_NAMES: Final = "watcher"


class Metrics(Collector):
    """All of them on a registry of their own."""

    def __init__(self, view: View, clock: Clock, sinks: Sequence[str] = ()) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = to = prometheus.CollectorRegistry()
        self._view = view
        self._clock = clock
        self._reasons: set[str] = set()
        counter = partial(prometheus.Counter, namespace=_NAMES, registry=to)
        gauge = partial(prometheus.Gauge, namespace=_NAMES, registry=to)
        histogram = partial(prometheus.Histogram, namespace=_NAMES, registry=to, buckets=_LATENCIES)
        self.transitions = counter("transitions", "Recorded edges", ["cluster", "edge"])
        self.notifications = counter("notifications", "What became of them", ["sink", "outcome"])
        self.failures = counter("notification_failures", "Failed attempts", ["sink", "reason"])
        self.latency = histogram("notification_latency_seconds", "Commit to delivery", ["sink"])
        self.detected = histogram(
            "detection_to_delivery_seconds", "From the edge that the watcher saw", ["sink"]
        )
        self.pending = gauge("deliveries_pending", "Open deliveries", ["sink", "state"])
        self.queue_fill = gauge("queue_fill_ratio", "Of its cap: 1 is full, and may be exceeded")
        self.oldest = gauge("delivery_oldest_seconds", "Age of the oldest open one", ["sink"])
        self.sink_parked = gauge("sink_parked", "Whether a sink waits for a human", ["sink"])
        self.sink_breaker = gauge(
            "sink_breaker", "0 closed, 1 lets one delivery through, 2 open", ["sink"]
        )
        self.sink_failing = gauge("sink_failing", "Whether other sinks are told of it", ["sink"])
        self.relists = counter("watch_relists", "Complete lists", ["cluster", "reason"])
        self.probe_failures = counter("probe_failures", "Failed probes", ["cluster", "reason"])
        self.watch_events = counter("watch_events", "Changes that the watch showed", ["cluster"])
        self.unreadable_rows = counter("unreadable_rows", "Damaged rows of the store", ["table"])
        self.store_errors = counter("store_errors", "Operations that the store refused")
        self.dead_man_pings = counter("dead_man_pings", "What became of them", ["outcome"])
        self.dead_man_withheld = gauge("dead_man_withheld", "Whether there is a reason for none")
        self.config_in_force = gauge("config_last_reload_successful", "Whether the newest counts")
        self.config_in_force.set(1)
        build = prometheus.Info("build", "The running version", namespace=_NAMES, registry=to)
        build.info({"version": __version__})
        for sink in sinks:
            self.sink_parked.labels(sink).set(0)
            self.sink_failing.labels(sink).set(0)
        prometheus.ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def failed(self, sink: str, reason: str) -> None:
        """Count a failed attempt; reasons beyond the fiftieth are `other`."""
        if reason not in self._reasons and len(self._reasons) < _REASONS and len(reason) <= 64:
            self._reasons.add(reason)
        self.failures.labels(sink, reason if reason in self._reasons else "other").inc()

    def render(
        self, queue: Iterable[Queued],
        encode: Callable[[Collector], bytes] = prometheus.generate_latest,
    ) -> bytes:  # fmt: skip
        """What a scrape is answered; `queue` is what the store says of it."""
        if not self._view.leading:  # only the writer looks
            self.queue_fill.set(math.nan)
        self.pending.clear()
        self.oldest.clear()
        for sink, state, count, at in sorted(queue, key=lambda row: row[3], reverse=True):
            self.pending.labels(sink, state).set(count)
            self.oldest.labels(sink).set(max((self._clock.now() - at).total_seconds(), 0))
        return encode(self.registry)

    def collect(self) -> Iterator[Metric]:
        """How every cluster stands at the moment of a scrape."""
        up = _gauge("apiserver_up", "Whether the last probe succeeded", "cluster")
        took = _gauge("probe_duration_seconds", "How long the last probe took", "cluster")
        fresh = _gauge("view_fresh", "Whether verdicts are passed", "cluster")
        age = _gauge("view_age_seconds", "Since when what is shown may be out of date", "cluster")
        incidents = _gauge("incidents_open", "Announced and not ended", "cluster", "severity")
        deployments = _gauge("deployments", "Followed Deployments", "cluster", "health")
        ignored = _gauge("annotation_problems", "Annotations that cannot be read", "cluster")
        leader = _gauge("is_leader", "Whether this process records and sends")
        leader.add_metric([], self._view.leading)
        yield leader
        lost = "Lines that the log's reader was too slow for"
        yield CounterMetricFamily(f"{_NAMES}_log_lines_dropped", lost, Log.dropped)
        now = self._clock.now()
        for name, cluster in self._view.clusters.items():
            in_sight, tracked = cluster.fresh(now), cluster.tracked.values()
            if cluster.probe is not None:
                up.add_metric([name], cluster.probe.error is None)
                took.add_metric([name], cluster.probe.latency)
            fresh.add_metric([name], in_sight)
            if (seconds := cluster.age(now)) is not None:
                age.add_metric([name], seconds.total_seconds())
            phases = (cluster.phase, *(each.phase for each in tracked))
            told = [p.incident for p in phases if isinstance(p, Firing | Clearing)]
            open_now = Tally(incident.severity for incident in told)
            for severity in Severity:
                incidents.add_metric([name, severity], open_now[severity])
            shown = cluster.shown(now)
            healths = Tally(
                t.verdict.health if t.scope in shown else Health.UNKNOWN for t in tracked
            )
            for health in Health:
                deployments.add_metric([name, health], healths[health])
            problems = (annotations.read(t.snapshot.annotations).problems for t in tracked)
            ignored.add_metric([name], sum(map(len, problems)))
        yield from (up, took, fresh, age, incidents, deployments, ignored)
        yield from self._streams(now)

    def _streams(self, now: datetime) -> Iterator[Metric]:
        labels: tuple[str, ...] = ("cluster", "scope")
        silence = _gauge("watch_silence_seconds", "Since a stream's last byte", *labels)
        bad = CounterMetricFamily(f"{_NAMES}_watch_bad_lines", "Unreadable events", labels=labels)
        back = "Times that the store was found to be an older copy"
        rewinds = CounterMetricFamily(f"{_NAMES}_store_rewinds", back, labels=labels)
        asked = _gauge("watch_timeout_seconds", "For how long the newest watch was asked", *labels)
        labels = (*labels, "reason")
        obstructed = _gauge("watch_obstructed", "Whether something stands in between", *labels)
        breaks = CounterMetricFamily(f"{_NAMES}_watch_breaks", "Ended streams", labels=labels)
        for name, cluster in self._view.clusters.items():
            for scope in cluster.scopes:
                stream = cluster.stream(scope)
                bad.add_metric([name, scope], stream.bad_lines)
                rewinds.add_metric([name, scope], stream.rewinds)
                asked.add_metric([name, scope], stream.timeout_seconds)
                if stream.shortened_by is not None:
                    obstructed.add_metric([name, scope, stream.shortened_by], 1)
                for reason, count in stream.breaks.items():
                    breaks.add_metric([name, scope, reason], count)
                if stream.last_byte_at is not None:
                    silence.add_metric([name, scope], (now - stream.last_byte_at).total_seconds())
        yield from (silence, bad, rewinds, asked, obstructed, breaks)


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_NAMES}_{name}", meaning, labels=labels)
