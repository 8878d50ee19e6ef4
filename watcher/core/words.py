"""Plain words for what the machine calls by code: reasons and their cures, ends, durations, times."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Final

from watcher.core.events import ENDS, Edge, Event, Flaps, Resolution
from watcher.core.message import visible
from watcher.core.model import Severity

NAMES_SHOWN: Final = 15
"""Of a long list, in a text; `Message.lines` has all of it."""
REASONS: Final = {
    "none_available": "nothing serves",
    "below_minimum": "too few replicas",
    "rollout_stalled": "the rollout has stalled",
    "replicaset_create_failed": "the new ReplicaSet cannot be created",
    "progress_false": "the rollout does not progress",
    "pods_not_created": "pods cannot be created",
    "no_progress": "no progress for too long",
    "available_false": "the controller calls it unavailable",
    "unreachable": "the API server does not answer",
    "unauthorized": "the API server does not let the watcher read",
    "view_stale": "Deployments cannot be watched",
    "throttled": "the API server asks for fewer requests",
}
ROLLOUT: Final = frozenset(
    {"rollout_stalled", "replicaset_create_failed", "progress_false", "no_progress"}
)
_COMMANDS: Final = {
    "unreachable": "kubectl get --raw='/readyz?verbose'",
    "unauthorized": "watcher check",
    "view_stale": "kubectl get deployments --all-namespaces --watch",
    "throttled": "kubectl get --raw=/debug/api_priority_and_fairness/dump_priority_levels",
}
ENDINGS: Final = {
    Resolution.DELETED: "was deleted",
    Resolution.RECREATED: "was deleted and created anew",
    Resolution.SCALED_TO_ZERO: "was scaled to zero",
    Resolution.PAUSED: "was paused",
    Resolution.IGNORED: "is ignored from now on",
    Resolution.LEFT_SCOPE: "no longer shows up under the watcher's label selector",
    Resolution.NOT_WATCHED: "is no longer watched",
}
CHANGES: Final = {
    "degraded": ("degraded and still is", "degraded and still are"),
    "returned": ("went down and came back", "went down and came back"),
    "recovered": ("recovered", "recovered"),
    "deleted": ("was deleted", "were deleted"),
}
"""What became of one, and of several, that could not be seen."""
SYMBOLS: Final = {
    "Unavailable": "🔴",
    "Degraded": "🟠",
    "Recovered": "✅",
    "Closed": "⚪",
    "Flapping": "🔁",
    "Restored": "✅",
    "Unreachable": "🔌",
    "Unauthorized": "🔑",
    "View stale": "⌛",
    "Throttled": "🐢",
    "Failing": "⚠️",
    "Test": "🔔",
}


def state(event: Event) -> str:
    """The word that comes first: `Unavailable`, `Recovered`, `View stale`, `Failing`, …"""
    if event.edge is Edge.CLOSED:
        return "Closed"
    if not event.subject.cluster:  # the watcher on itself: `sink.failing`, `test`
        return visible(event.reason.rpartition(".")[2], 40).capitalize()
    if event.edge is Edge.RECOVERED:
        return "Restored" if event.subject.is_cluster else "Recovered"
    if event.subject.is_cluster:
        return visible(event.reason, 40).replace("_", " ").capitalize()
    if event.flapping or event.edge is Edge.FLAPPING:
        return "Flapping"
    return "Unavailable" if nothing_serves(event) else "Degraded"


def nothing_serves(event: Event) -> bool:
    """Whether an outage is total; endpoints route to ready pods, available or not yet."""
    if event.facts is None or event.edge in ENDS:  # an end's numbers are those of afterwards
        return event.severity is Severity.CRITICAL or event.reason == "none_available"
    return max(event.facts.available, event.facts.ready) == 0


def reason(event: Event) -> str:
    """`the rollout has stalled and nothing serves`."""
    words = REASONS.get(event.reason) or visible(event.reason, 60).replace("_", " ") or "unknown"
    total = event.reason != "none_available" and not event.subject.is_cluster
    return f"{words} and nothing serves" if total and nothing_serves(event) else words


def command(event: Event) -> str:
    """A line to start with, safe to paste; `watcher` where the watcher runs, as its own rights count."""
    if event.subject.is_cluster:
        return _COMMANDS.get(event.reason, "")
    namespace, name = quote(visible(event.subject.namespace)), quote(visible(event.subject.name))
    if event.reason in ROLLOUT:
        return f"kubectl -n {namespace} rollout status deploy/{name} --watch=false"
    if event.reason == "pods_not_created":
        return f"kubectl -n {namespace} get events --field-selector reason=FailedCreate"
    return f"kubectl -n {namespace} describe deploy/{name}"


def trouble(code: str) -> str:
    """What kept a message from its sink: `HTTP 404: gone` of `http_404: HTTP 404: gone`."""
    said = visible(code, 200).replace("_", " ").replace("http ", "HTTP ")
    return ": ".join(dict.fromkeys(said.split(": ")))


def ending(event: Event) -> str:
    """How an incident that was closed ended: `was scaled to zero`."""
    if event.still_there:
        return "is being deleted"
    return ENDINGS[event.resolution] if event.resolution else "is no longer followed"


def readable(duration: timedelta) -> str:
    """`45 s`, `12 min`, `2 h 5 min`, `3 d 4 h`; a negative one counts as zero."""
    seconds = max(0, int(duration.total_seconds()))
    if seconds < 3600:
        return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
    minutes, hours, days = seconds // 60 % 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def at(moment: datetime, today: datetime) -> str:
    """`14:02 UTC`, with the date when it was another day's."""
    moment = moment.astimezone(UTC)
    same_day = moment.date() == today.astimezone(UTC).date()
    return f"{moment:%H:%M} UTC" if same_day else f"{moment:%Y-%m-%d %H:%M} UTC"


def rfc3339(moment: datetime) -> str:
    """For machines, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def window(start: datetime, end: datetime) -> str:
    """From when to when, and how long: 14:02 to 14:09 as a range, then `UTC (7 min)`."""
    opening, closing = at(start, end), at(end, end)
    if opening == closing:  # within one minute the seconds tell them apart
        opening, closing = (f"{m.astimezone(UTC):%H:%M:%S} UTC" for m in (start, end))
    span = readable(end - start)
    return f"{opening.removesuffix(' UTC')}\N{EN DASH}{closing} ({span})"


def changed(where: str, kind: str, at: str, reason: str) -> str:
    """`shop/web: degraded since 14:05 UTC, nothing serves`, of one that could not be seen."""
    match kind:
        case "degraded":
            why = REASONS.get(reason) or visible(reason, 60).replace("_", " ")
            return f"{where}: degraded{at and f' since{at}'}, {why}"
        case "deleted":
            return f"{where}: {ENDINGS[Resolution(reason)]}"
        case "returned":
            return f"{where}: went down and came back{at and f' at{at}'}"
        case _:
            return f"{where}: recovered{at and f', up since{at}'}"


def lasting(since: datetime, now: datetime) -> str:
    """`since 14:02 UTC (7 min)`."""
    return f"since {at(since, now)} ({readable(now - since)})"


def flaps(counted: Flaps, since: str) -> str:
    """`degraded 6 times since 14:02 UTC (2 min), for 1 min in all`."""
    in_all = (
        f", for {readable(counted.lasted)} in all" if counted.lasted >= timedelta(seconds=1) else ""
    )
    return f"degraded {counted.times} times {since}{in_all}"


def sentences(*parts: str) -> str:
    """What is not empty, each ended by a full stop."""
    ended = (part if part.endswith((".", "!", "?", "…")) else f"{part}." for part in parts if part)
    return " ".join(ended)


def names(subjects: Sequence[str], count: int) -> str:
    """`shop/a, shop/b and 40 more`: of `count`, the first of which are given."""
    shown = [visible(subject, 80) for subject in subjects[:NAMES_SHOWN]]
    named, rest = ", ".join(shown), count - len(shown)
    return f"{named} and {rest} more" if rest > 0 else named


def name(event: Event) -> str:
    """`shop/checkout`."""
    return visible(str(event.subject), 400)


def cluster(event: Event) -> str:
    """Its name."""
    return visible(event.subject.cluster, 100)
