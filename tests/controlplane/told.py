"""All that a watcher has told: the webhook, Slack and the audit log, which have to agree."""

from collections.abc import Iterator
from itertools import product

from tests.controlplane.client import Json
from tests.controlplane.receivers import Receiver, eventually
from tests.controlplane.watcher_process import WatcherProcess
from watcher.testing.slack import FakeSlack
from watcher.testing.slack_channel import Post

PREFIX, SUFFIX = "dev.deployment-watcher.", ".v1"
SETTLED = frozenset(
    f"notification.{outcome}" for outcome in ("sent", "superseded", "abandoned", "expired")
)
PLANNED = frozenset(f"notification.{outcome}" for outcome in ("queued", "suppressed", "grouped"))


class Told:
    """What one watcher's receivers got."""

    def __init__(self, watcher: WatcherProcess, slack: FakeSlack, hook: Receiver) -> None:
        self.slack = slack
        self.hook = hook
        self.watcher = watcher

    def wait(self, kind: str, name: str = "") -> Json:
        """The first webhook of that kind: `deployment.degraded` of a Deployment of that name."""

        def found() -> Json | None:
            wanted = f"{kind} {name}".rstrip()
            return next((e for e in self.hook.events if _headline(e) == wanted), None)

        return eventually(found, instead=self.headlines)

    def headlines(self) -> list[str]:
        """What the webhook got so far: `deployment.degraded web`."""
        return [*map(_headline, self.hook.events)]

    def story(self) -> list[str]:
        """Every event so far, in the order of their commits, once all that tell it agree."""
        return eventually(self._agreed, instead=self._disagreement)

    def channel(self) -> list[list[str]]:
        """For each message in Slack its present state, then those that its thread tells."""
        self.story()
        return [[*map(_state, (post, *post.replies))] for post in self.slack.messages]

    def _agreed(self) -> list[str] | None:
        """The story, if nothing is left to be sent and the audit log has just what was received."""
        lines, received = self.watcher.audit, self.hook.events
        recorded = _recorded(lines)
        if sorted(recorded) != sorted(event["id"] for event in received):
            return None
        if _unsent(lines) or any(self._unplanned(lines)):
            return None
        headlines = {event["id"]: _headline(event) for event in received}
        return [headlines[event] for event in recorded]

    def _unplanned(self, lines: list[Json]) -> Iterator[tuple[str, str]]:
        """Event and sink of which the log does not say yet what is to become: it is written line by line."""
        planned = {(line["event_id"], line["sink"]) for line in lines if line["event"] in PLANNED}
        sinks = [sink["name"] for sink in self.watcher.config["sinks"]]
        return (pair for pair in product(_recorded(lines), sinks) if pair not in planned)

    def _disagreement(self) -> str:
        lines, received = self.watcher.audit, self.headlines()
        return (
            f"received {received}, recorded {_recorded(lines)}, unsent {_unsent(lines)}, "
            f"unplanned {[*self._unplanned(lines)]}"
        )


def _recorded(lines: list[Json]) -> list[str]:
    told = (line for line in lines if line["event"].startswith("incident."))
    return [line["event_id"] for line in told if line["event"] != "incident.debounced"]


def _unsent(lines: list[Json]) -> list[str]:
    settled = {line["delivery"] for line in lines if line["event"] in SETTLED}
    queued = (line for line in lines if line["event"] == "notification.queued")
    return [line["event_id"] for line in queued if line["delivery"] not in settled]


def _headline(event: Json) -> str:
    kind: str = event["type"].removeprefix(PREFIX).removesuffix(SUFFIX)
    return f"{kind} {event['data'].get('name', '')}".rstrip()


def _state(post: Post) -> str:
    return post.text.partition(":")[0]
