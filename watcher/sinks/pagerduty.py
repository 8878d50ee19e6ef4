"""PagerDuty's Events API v2: a trigger when an incident opens or changes, a resolve when it ends.

The queue sends them in that order: a resolve without its trigger would be dropped, and the trigger
that came after it would open an alert that nobody ends. https://developer.pagerduty.com/docs/
events-api-v2, delivery reference §2.4.
"""

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec.structs import asdict

from watcher.core.events import ENDS, Event
from watcher.core.message import visible
from watcher.core.model import Json
from watcher.core.words import rfc3339
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks.answers import check, unreadable
from watcher.sinks.http import Secret, Sender, read_secret

_SUMMARY: Final = 1000
_DETAIL: Final = 4000
_PER_SECOND: Final = 2.0
"""PagerDuty takes about 120 a minute of one key."""
_ACCEPTED: Final = 202


@dataclass(eq=False)
class PagerDuty:
    """One PagerDuty alert an incident: the incident's id is its `dedup_key`."""

    name: str
    sender: Sender
    routing_key: Secret
    url: str

    def __post_init__(self) -> None:
        self.traits = Traits(self.name, rate=_PER_SECOND)

    async def send(self, notification: Notification) -> Json | None:
        """Enqueue; a test is resolved again at once, so that it wakes nobody for long."""
        key, event = read_secret(self.routing_key), notification.event
        if event.edge not in ENDS:
            await self._post(
                key, event, {"event_action": "trigger", "payload": _payload(notification)}
            )
        if event.edge in ENDS or event.type == "test":
            await self._post(key, event, {"event_action": "resolve"})
        return None

    async def _post(self, key: str, event: Event, what: Json) -> None:
        known = {"routing_key": key, "dedup_key": event.incident, "client": "deployment-watcher"}
        body = msgspec.json.encode({**known, **what})
        answer = await self.sender.post(self.url, body, {"Content-Type": "application/json"})
        if answer.status == 400 and b"routing" in answer.body.lower():  # else it says what is wrong
            detail = "PagerDuty does not know the routing key"
            raise SinkError("invalid_routing_key", Outcome.PARK, detail=detail)
        check(answer, self.sender.clock.wall(), [key])
        if answer.status != _ACCEPTED:
            raise unreadable(answer, key)


def _payload(notification: Notification) -> Json:
    event, message = notification.event, notification.message
    subject = event.subject
    where = "/".join(filter(None, (subject.cluster, subject.namespace, subject.name)))
    payload: Json = {
        "summary": visible(message.text, _SUMMARY) or event.reason,
        "source": visible(where, 500) or "deployment-watcher",
        "severity": event.severity.value,  # both are words of PagerDuty's, too
        "timestamp": rfc3339(event.since),
        "component": visible(subject.name, 500),
        "group": visible(subject.namespace, 500),
        "class": visible(event.reason, 500),
    }
    if notification.plain:
        return payload
    facts = asdict(event.facts) if event.facts else {}
    said = visible(event.message, _DETAIL)
    details = {**facts, "message": said, "event": event.id, "command": message.command}
    return {**payload, "custom_details": details}
