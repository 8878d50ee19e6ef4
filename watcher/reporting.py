"""What happened goes to the audit log and the metrics together, from one place."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from watcher import audit
from watcher.core.model import Delivery, DeliveryState
from watcher.errors import ClusterError, SinkError, StoreError
from watcher.metrics import Metrics
from watcher.ports import Applied, Broken, Claim, Deleted, Listed, Probe, Record, WatchEvent
from watcher.view import View


class Reporting:
    """Told by the loops after the fact; it decides nothing."""

    def __init__(self, view: View, metrics: Metrics) -> None:
        self._view = view
        self._metrics = metrics
        self._unreached: dict[str, ClusterError] = {}
        self._broken: dict[tuple[str, str], str] = {}
        """Why the next list of a scope is needed."""

    def recorded(self, record: Record) -> None:
        """A decision was committed."""
        self.store_works()
        audit.recorded(record)
        for event in record.events:
            self._metrics.transitions.labels(event.subject.cluster, event.edge).inc()
        for delivery in record.deliveries:
            state = delivery.state
            self._count(delivery, "queued" if state is DeliveryState.PENDING else state)

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None:
        """The watch of a cluster delivered this."""
        for event in events:
            match event:
                case Listed(scope=scope, snapshots=snapshots):
                    reason = self._broken.pop((cluster, scope), "start")
                    self._metrics.relists.labels(cluster, reason).inc()
                    audit.emit(
                        "cluster.listed",
                        cluster=cluster,
                        scope=scope,
                        reason=reason,
                        deployments=len(snapshots),
                    )
                case Applied() | Deleted():
                    self._metrics.watch_events.labels(cluster).inc()
                case Broken(scope=scope, error=error):
                    self._watch_broken(cluster, scope, error)
                case _:
                    pass

    def probed(self, cluster: str, probe: Probe) -> None:
        """A heartbeat's answer came; only a change is worth a line."""
        before = self._unreached.get(cluster)
        if probe.error is None:
            self._unreached.pop(cluster, None)
            if before is not None:
                latency = timedelta(seconds=probe.latency)
                audit.emit(
                    "cluster.probe_succeeded",
                    cluster=cluster,
                    version=probe.version,
                    latency=latency,
                )
            return
        self._unreached[cluster] = probe.error
        reason = probe.error.cause_label
        if before is None or before.cause_label != reason:
            audit.emit(
                "cluster.probe_failed", cluster=cluster, reason=reason, error=str(probe.error)
            )

    def sent(self, claim: Claim, at: datetime, took: timedelta) -> None:
        """The sink has it."""
        self.store_works()
        delivery, latency = claim.delivery, max(at - claim.recorded_at, timedelta(0))
        self._count(delivery, "sent")
        self._view.sink_troubles.pop(delivery.sink, None)
        self._metrics.sink_parked.labels(delivery.sink).set(0)
        self._metrics.latency.labels(delivery.sink).observe(latency.total_seconds())
        audit.notification(
            "sent", delivery, attempts=claim.attempts + 1, latency=latency, took=took,
            ambiguous=claim.ambiguous,
        )  # fmt: skip

    def superseded(self, claim: Claim, delivery: Delivery) -> None:
        """It need not be sent, since what was claimed tells the same or newer."""
        self._count(delivery, "superseded")
        audit.notification("superseded", delivery, reason=f"told by {claim.delivery.id}")

    def deferred(self, claim: Claim, error: SinkError, until: datetime) -> None:
        """It failed and will be tried again."""
        self._failed(claim, error, "deferred", until)

    def parked(self, claim: Claim, error: SinkError, until: datetime) -> None:
        """The sink needs a human; its queue is kept."""
        self._metrics.sink_parked.labels(claim.delivery.sink).set(1)
        self._failed(claim, error, "parked", until)

    def resumed(self, sink: str) -> None:
        """A parked sink works again."""
        self._metrics.sink_parked.labels(sink).set(0)
        audit.emit("sink.resumed", sink=sink)

    def abandoned(self, claim: Claim, error: SinkError) -> None:
        """The sink will never take this one."""
        self._failed(claim, error, "abandoned", None)

    def expired(self, claim: Claim) -> None:
        """It is older than is of use to anybody."""
        self._count(claim.delivery, "expired")
        audit.notification(
            "expired", claim.delivery, attempts=claim.attempts, error=claim.last_error
        )

    def store_failed(self, sink: str, error: StoreError) -> None:
        """The store did not answer a dispatcher."""
        self.store_refused(error)

    def store_refused(self, error: StoreError) -> None:
        """The store did not take what was asked; only the first time in a row is worth a line."""
        self._metrics.store_errors.inc()
        if self._view.store_error is None:
            audit.emit("store.failing", error=str(error))
        self._view.store_error = str(error)

    def store_works(self) -> None:
        """The store took what was asked."""
        if self._view.store_error is not None:
            self._view.store_error = None
            audit.emit("store.restored")

    def _watch_broken(self, cluster: str, scope: str, error: ClusterError | None) -> None:
        reason = "ended" if error is None else error.cause_label
        known = self._broken.get((cluster, scope))
        self._broken[cluster, scope] = reason
        if error is not None and known != reason:
            audit.emit(
                "cluster.watch_broken",
                cluster=cluster,
                scope=scope,
                reason=reason,
                error=str(error),
            )

    def _failed(self, claim: Claim, error: SinkError, outcome: str, until: datetime | None) -> None:
        if until is not None:
            self._view.sink_troubles[claim.delivery.sink] = str(error)
        self._count(claim.delivery, outcome)
        self._metrics.failed(claim.delivery.sink, error.reason)
        audit.notification(
            outcome, claim.delivery, reason=error.reason, error=error.detail, due=until,
            attempts=claim.attempts + 1, ambiguous=claim.ambiguous or error.ambiguous,
        )  # fmt: skip

    def _count(self, delivery: Delivery, outcome: str) -> None:
        self._metrics.notifications.labels(delivery.sink, outcome).inc()
