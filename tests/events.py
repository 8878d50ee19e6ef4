"""Events as the observer records them, for tests of what is said about them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from watcher.core.compose import compose
from watcher.core.delivery import Part, delivery_id
from watcher.core.events import Edge, Event, Facts, incident_id
from watcher.core.model import Json, Severity, Subject
from watcher.ports import Notification

BEGAN = datetime(2026, 11, 22, 14, 2, tzinfo=UTC)
CHECKOUT = Subject("prod-eu", "shop", "checkout", "0d2c")
CLUSTER = Subject("prod-eu")
NONE = Facts(desired=3, floor=2, updated=3, ready=0, available=0, generation=12, revision=7)
ALL = Facts(desired=3, floor=2, updated=3, ready=3, available=3, generation=12, revision=7)
STALLED: dict[str, Any] = {
    "reason": "rollout_stalled",
    "severity": Severity.WARNING,
    "message": "2 of 3 replicas available, the old version still serves with at least 2;"
    ' ProgressDeadlineExceeded: ReplicaSet "checkout-7d9f" has timed out progressing.',
    "facts": Facts(desired=3, floor=2, updated=1, ready=2, available=2, old_serving=2, revision=8),
}


def event(edge: Edge, minutes: float = 0.5, sequence: int = 1, **changes: Any) -> Event:  # noqa: ANN401 - any field
    """An event of shop/checkout, `minutes` after it began to be down at 14:02."""
    usual: dict[str, Any] = {
        "incident": incident_id(BEGAN, "shop/checkout"),
        "subject": CHECKOUT,
        "since": BEGAN,
        "opened_at": BEGAN + timedelta(minutes=0.5),
        "reason": "none_available",
        "severity": Severity.CRITICAL,
        "message": "0 of 3 replicas available, 2 needed",
        "facts": ALL if edge is Edge.RECOVERED else NONE,
    }
    at = BEGAN + timedelta(minutes=minutes)
    return Event(edge=edge, sequence=sequence, at=at, **(usual | changes))


def outage(edge: Edge, minutes: float = 1, **changes: Any) -> Event:  # noqa: ANN401 - any field
    """An event of the cluster prod-eu."""
    usual: dict[str, Any] = {
        "reason": "unreachable",
        "message": "connection refused",
        "facts": None,
        "subject": CLUSTER,
        "incident": incident_id(BEGAN, "prod-eu"),
    }
    return event(edge, minutes, **(usual | changes))


def notification(
    told: Event,
    part: Part = Part.EVENT,
    *,
    thread: Json | None = None,
    plain: bool = False,
    **composed: Any,  # noqa: ANN401 - any argument of compose
) -> Notification:
    """What the dispatcher hands to a sink five seconds after the event."""
    now = told.at + timedelta(seconds=5)
    usual: dict[str, Any] = {"latest": told, "now": now}
    message = compose(told, part=part, **(usual | composed))
    return Notification(delivery_id(told.id, "sink", part), part, message, told, thread, plain)
