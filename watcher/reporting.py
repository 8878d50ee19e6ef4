"""What happened goes to the audit log and the metrics together, from one place."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from watcher import audit
from watcher.core.delivery import Delivery, DeliveryState
from watcher.core.events import ENDS, Edge, Event
from watcher.core.retry import Verdict
from watcher.errors import Deposed, SinkError, StoreError
from watcher.metrics import Metrics
from watcher.ports import Applied, Broken, Claim, Deleted, Listed, Probe, Record, WatchEvent
from watcher.view import View

_EDGES: Final = {
    Edge.DEGRADED: ("incident.opened", "digest.opened"),
    Edge.FLAPPING: ("incident.flapping", "digest.updated"),
    Edge.UPDATED: ("incident.updated", "digest.updated"),
    Edge.RECOVERED: ("incident.resolved", "digest.ended"),
    Edge.CLOSED: ("incident.closed", "digest.ended"),
}
_FAILED: Final = {
    DeliveryState.PENDING: "deferred", DeliveryState.PARKED: "parked", DeliveryState.DEAD: "abandoned",
    DeliveryState.EXPIRED: "expired",
}  # fmt: skip
_STORE: Final = ("", "store")  # no cluster has no name
_PING: Final = ("", "ping")
_EMPTY: Final = "no Deployments are shown in it; if there is no such namespace it is the same"


class Reporting:
    """Told by the loops after the fact; it decides nothing."""

    def __init__(self, view: View, metrics: Metrics) -> None:
        self._view = view
        self._metrics = metrics
        self._wrong: dict[tuple[str, ...], str] = {}
        """What fails now, and why: of a cluster its probe, of a scope its watch, the store, the ping."""
        self._empty = set[tuple[str, str]]()
        """Namespaces, each with its cluster, of which it is on record that nothing is in them."""

    def recorded(self, record: Record) -> None:
        """A decision was committed."""
        self.store_works()
        self.echo(record)

    def echo(self, record: Record) -> None:
        """Put it on record: its events, then who is told of them and who is not."""
        for event in record.events:
            if event.subject.cluster:
                name = _EDGES[event.edge][event.digest]
                self._metrics.transitions.labels(event.subject.cluster, event.edge).inc()
            else:
                name = self._own_trouble(event)
            audit.emit(name, **_told(name, event))
        for subject, fault in record.debounced:
            audit.emit(
                "incident.debounced", cluster=subject.cluster, namespace=subject.namespace or None,
                deployment=subject.name or None, uid=subject.uid or None, severity=fault.severity,
                reason=fault.reason, message=fault.message, since=fault.began, due=fault.due,
            )  # fmt: skip
        for delivery in record.deliveries:
            outcome = "queued" if delivery.state is DeliveryState.PENDING else delivery.state
            self._notified(outcome, delivery, due=delivery.due, reason=delivery.reason)

    def _own_trouble(self, event: Event) -> str:
        """What the watcher says of itself: of a sink, or of the whole queue."""
        over, sink = event.edge in ENDS, event.subject.name
        if not sink:
            return "queue.restored" if over else "queue.filling"
        self._metrics.sink_failing.labels(sink).set(not over)
        if over:
            self._metrics.sink_parked.labels(sink).set(0)
        return "sink.restored" if over else "sink.failing"

    def watched(self, cluster: str, events: Sequence[WatchEvent]) -> None:
        """The watch of a cluster delivered this."""
        for event in events:
            match event:
                case Listed(scope=scope, snapshots=snapshots, reason=reason):
                    if event.rewound_from:
                        audit.emit(
                            "cluster.rewound", cluster=cluster, scope=scope,
                            reached=event.rewound_from, version=event.version,
                            deployments=len(snapshots),
                        )  # fmt: skip
                    self._wrong.pop((cluster, scope), "")
                    self._metrics.relists.labels(cluster, reason).inc()
                    audit.emit(
                        "cluster.listed", cluster=cluster, scope=scope, reason=reason,
                        deployments=len(snapshots),
                    )  # fmt: skip
                    if not snapshots and scope:
                        self._is_empty(cluster, scope)
                    else:
                        self._empty.discard((cluster, scope))
                case Applied(scope=scope) | Deleted(scope=scope):
                    self._empty.discard((cluster, scope))
                    self._metrics.watch_events.labels(cluster).inc()
                case Broken(scope=scope, error=error):
                    reason = "ended" if error is None else error.cause_label
                    if self._fails_anew((cluster, scope), reason) and error is not None:
                        audit.emit(
                            "cluster.watch_broken", cluster=cluster, scope=scope, reason=reason,
                            error=str(error),
                        )  # fmt: skip
                case _:
                    pass

    def _is_empty(self, cluster: str, namespace: str) -> None:
        """Warn once of a namespace without anything: the API answers the same if there is no such one."""
        if (cluster, namespace) not in self._empty:
            self._empty.add((cluster, namespace))
            audit.emit(
                "cluster.namespace_empty", cluster=cluster, namespace=namespace, message=_EMPTY
            )

    def probed(self, cluster: str, probe: Probe) -> None:
        """A heartbeat's answer came; only a change is worth a line."""
        if probe.error is not None:
            reason = probe.error.cause_label
            self._metrics.probe_failures.labels(cluster, reason).inc()
            if self._fails_anew((cluster,), reason):
                error = str(probe.error)
                audit.emit("cluster.probe_failed", cluster=cluster, reason=reason, error=error)
        elif self._wrong.pop((cluster,), ""):
            latency = timedelta(seconds=probe.latency)
            version = probe.version
            audit.emit("cluster.probe_succeeded", cluster=cluster, version=version, latency=latency)

    def sent(self, claim: Claim, at: datetime, took: timedelta) -> None:
        """The sink has it."""
        self.catch_up()
        self.store_works()
        sink, latency = claim.delivery.sink, max(at - claim.recorded_at, timedelta(0))
        self._metrics.latency.labels(sink).observe(latency.total_seconds())
        edge_at = min(event.at for event in (claim.event, *claim.covers))
        self._metrics.detected.labels(sink).observe(max((at - edge_at).total_seconds(), 0))
        self._notified(
            "sent", claim.delivery, attempts=claim.attempts + 1, latency=latency, took=took,
            ambiguous=claim.ambiguous,
        )  # fmt: skip

    def answers(self, sink: str) -> None:
        """The sink works, whatever it made of the last delivery."""
        self._view.sink_troubles.pop(sink, None)
        self._metrics.sink_parked.labels(sink).set(0)

    def superseded(self, by: Delivery, delivery: Delivery) -> None:
        """It need not be sent, since the other one tells the same or newer."""
        self.catch_up()
        self._notified("superseded", delivery, reason=f"told by {by.id}")

    def queue_filled(self, share: float) -> None:
        """So much of its cap the queue takes."""
        self._metrics.queue_fill.set(share)

    def restated(self, sink: str, missed: Sequence[SinkError], *, nobody: bool = False) -> None:
        """A level-triggered sink was told all that stands, but for some of its peers, or all."""
        for error in missed:
            self._metrics.failed(sink, error.reason)
        if nobody:
            self._view.sink_troubles[sink] = str(missed[0])
        else:
            self._view.sink_troubles.pop(sink, None)

    def failed(self, claim: Claim, error: SinkError, end: Verdict, *, again: bool = False) -> None:
        """It is tried again, given up, or kept in the queue of a sink that needs a human.

        That nobody was to be reached `again`, seconds later, is counted and not worth a line.
        """
        self.catch_up()
        sink = claim.delivery.sink
        if end.due is not None:
            self._view.sink_troubles[sink] = str(error)
        if end.state is DeliveryState.PARKED:
            self._metrics.sink_parked.labels(sink).set(1)
        self._metrics.failed(sink, error.reason)
        if again and end.state is DeliveryState.PENDING:
            self._metrics.notifications.labels(sink, _FAILED[end.state]).inc()
            return
        self._notified(
            _FAILED[end.state], claim.delivery, reason=error.reason, error=error.detail, due=end.due,
            attempts=claim.attempts + 1, ambiguous=claim.ambiguous or error.ambiguous,
        )  # fmt: skip

    def expired(self, claim: Claim, why: str) -> None:
        """It is older than is of use to anybody, and was not tried again, or never, for what reason."""
        self.catch_up()
        attempts = claim.attempts
        self._notified(
            "expired", claim.delivery, attempts=attempts, reason=why, ambiguous=claim.ambiguous
        )

    def dead_man(self, reason: str) -> None:
        """The dead-man ping is withheld for this reason; without one, it is not."""
        before, self._view.dead_man = self._view.dead_man, reason
        self._metrics.dead_man_withheld.set(bool(reason))
        if reason and reason != before:
            audit.emit("dead_man.withheld", reason=reason)
        elif before and not reason:
            audit.emit("dead_man.resumed")

    def pinged(self, error: SinkError | None) -> None:
        """A dead-man ping was sent, or could not be; only a change is worth a line."""
        self._metrics.dead_man_pings.labels("failed" if error else "sent").inc()
        if error is None:
            self._wrong.pop(_PING, None)
        elif self._fails_anew(_PING, str(error)):
            audit.emit("dead_man.failed", reason=error.reason, error=error.detail or None)

    def store_refused(self, error: StoreError) -> None:
        """The store did not take what was asked; what it says again is not worth a line."""
        if isinstance(error, Deposed):
            self.deposed()
            return
        self._metrics.store_errors.inc()
        self._view.store_error = str(error)
        if self._fails_anew(_STORE, str(error)):
            audit.emit("store.failing", error=str(error))

    def store_works(self) -> None:
        """The store took what was asked."""
        self._view.store_error = None
        if self._wrong.pop(_STORE, ""):
            audit.emit("store.restored")

    def unreadable(self, table: str, key: str) -> None:
        """A row of the store is damaged: it is out of the way, and of no more use."""
        self._metrics.unreadable_rows.labels(table).inc()
        audit.emit("store.row_unreadable", table=table, key=key)

    def leads(self, leading: bool) -> None:
        """This process has become the writer, or is it no more."""
        self._view.leading = leading
        audit.emit("lease.gained" if leading else "lease.ended")

    def deposed(self) -> None:
        """The store has refused this process as its writer."""

    def _fails_anew(self, of: tuple[str, ...], why: str) -> bool:
        """Keep why it fails, and say whether that is news."""
        before, self._wrong[of] = self._wrong.get(of), why
        return why != before

    def catch_up(self) -> None:
        """Echo what was committed and is not echoed yet, before what has followed from it."""

    def _notified(
        self, outcome: str, delivery: Delivery, *,
        reason: str = "", error: str = "", attempts: int = 0, ambiguous: bool = False,
        **times: datetime | timedelta | None,
    ) -> None:  # fmt: skip
        """`latency` is since the commit, `took` of the attempt, `due` when the next one is."""
        self._metrics.notifications.labels(delivery.sink, outcome).inc()
        audit.emit(
            f"notification.{outcome}", delivery=delivery.id, event_id=delivery.event,
            incident=delivery.incident, sequence=delivery.sequence, sink=delivery.sink,
            part=delivery.part, digest=delivery.digest or None, reason=reason or None,
            error=error or None, attempts=attempts, ambiguous=ambiguous, **times,
        )  # fmt: skip


def _told(name: str, event: Event) -> dict[str, Any]:
    subject = event.subject
    named = {
        "event_id": event.id, "cluster": subject.cluster, "namespace": subject.namespace or None,
        "deployment": subject.name or None, "uid": subject.uid or None, "sink": subject.name,
    }  # fmt: skip
    fields = audit.FIELDS[name]
    return {field: named[field] if field in named else getattr(event, field) for field in fields}
