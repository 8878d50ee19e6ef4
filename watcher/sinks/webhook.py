"""Signed webhooks: a CloudEvents 1.0 body with the headers of Standard Webhooks 1.0.

The body is one JSON object in CloudEvents' structured mode, so that one signature covers all of it;
or that of Alertmanager's webhooks, for receivers that know those.
Its schema is docs/webhook.schema.json. Specifications: https://cloudevents.io and
https://www.standardwebhooks.com.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import asdict

from watcher.config.rules import signing_key
from watcher.core.events import ENDS, Flaps
from watcher.core.message import visible
from watcher.core.model import Json, Subject
from watcher.core.words import rfc3339
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks.alerts import webhook_body
from watcher.sinks.answers import check
from watcher.sinks.http import Secret, Sender, read_secret, read_secrets

_MESSAGE_LIMIT: Final = 4000
"""Characters of the cluster's own words. However they are encoded the body stays far under the
64 KiB that a CloudEvents intermediary must forward."""
_TRIMMED: Final = 200
_AS_RECORDED: Final = (
    "incident", "reason", "severity", "was_critical", "flapping", "worsened", "resolution",
    "meanwhile", "unseen",
)  # fmt: skip


@dataclass(eq=False)
class Webhook:
    """Posts every event to one URL, signed with each of `secrets` (several while one is rotated)."""

    name: str
    sender: Sender
    url: Secret
    secrets: Sequence[Secret] = ()
    headers: Mapping[str, Secret] = field(default_factory=dict)
    alertmanager: bool = False

    def __post_init__(self) -> None:
        self.traits = Traits(self.name)

    async def send(self, notification: Notification) -> Json | None:
        """Post once; any 2xx is success. After a 413 the plain form is the same, trimmed."""
        url = read_secret(self.url)
        secrets = [read_secret(secret) for secret in self.secrets]
        now = self.sender.clock.wall()
        limit = _TRIMMED if notification.plain else _MESSAGE_LIMIT
        own = read_secrets(self.headers)
        kind, content = "cloudevents+json; charset=utf-8", envelope(notification, limit)
        if self.alertmanager:
            kind, content = "json", webhook_body(notification, self.name, limit)
        body = msgspec.json.encode(content)
        headers = {
            **own,
            "Content-Type": f"application/{kind}",
            **_signed(notification.delivery_id, now, body, secrets),
        }
        check(await self.sender.post(url, body, headers), now, [url, *secrets, *own.values()])
        return None


def envelope(notification: Notification, limit: int = _MESSAGE_LIMIT) -> Json:
    """The CloudEvents object, with texts of at most `limit` characters."""
    event = notification.event
    return {
        "specversion": "1.0",
        "id": event.id,
        "type": f"dev.deployment-watcher.{event.type}.v1",
        "source": f"/clusters/{event.subject.cluster}" if event.subject.cluster else "/watcher",
        **_subject(event.subject),
        "time": rfc3339(event.at),
        "sequence": f"{event.sequence:010d}",
        "partitionkey": event.incident,
        "datacontenttype": "application/json",
        "data": _data(notification, limit),
    }


def _signed(delivery: str, now: datetime, body: bytes, secrets: Sequence[str]) -> Mapping[str, str]:
    """Standard Webhooks headers: `id.timestamp.body` under every secret, in one list."""
    timestamp = str(int(now.timestamp()))
    headers = {"webhook-id": delivery, "webhook-timestamp": timestamp}
    content = b".".join((delivery.encode(), timestamp.encode(), body))
    macs = [hmac.digest(key, content, hashlib.sha256) for key in _keys(secrets)]
    signatures = " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs)
    return headers | ({"webhook-signature": signatures} if signatures else {})


def _keys(secrets: Sequence[str]) -> Iterator[bytes]:
    for number, secret in enumerate(secrets):
        try:
            yield signing_key(secret)
        except ValueError as error:
            detail = f"secrets.{number} {error}"
            raise SinkError("secret_malformed", Outcome.PARK, detail=detail) from None


def _subject(subject: Subject) -> Json:
    if subject.is_cluster:
        return {}
    if not subject.cluster:
        return {"subject": f"sinks/{subject.name}"}
    return {"subject": f"namespaces/{subject.namespace}/deployments/{subject.name}"}


def _data(notification: Notification, limit: int) -> Json:
    """All that a receiver may want to decide on without asking anybody."""
    event, message = notification.event, notification.message
    ended = event.edge in ENDS
    data: Json = {
        **{name: getattr(event, name) for name in _AS_RECORDED},
        "delivery": notification.delivery_id,
        "event": "test" if event.type == "test" else event.edge,
        "cluster": event.subject.cluster,
        "namespace": event.subject.namespace or None,
        "name": event.subject.name if event.type != "test" else None,
        "uid": event.subject.uid or None,
        "title": visible(message.title, 500),
        "message": visible(event.message, limit),
        "summary": visible(message.text, limit),
        "truncated": max(len(event.message), len(message.text)) > limit,
        "since": rfc3339(event.since),
        "opened_at": rfc3339(event.opened_at),
        "duration_seconds": max(0.0, (event.at - event.since).total_seconds()) if ended else None,
        "blind_seconds": event.blind_for,
        "rewound": event.rewound or None,
        "flaps": event.flaps and _flaps(event.flaps),
        "facts": event.facts and _known(asdict(event.facts)),
        "command": message.command or None,
    }
    return _known(data)


def _flaps(counted: Flaps) -> Json:
    seconds = counted.lasted.total_seconds()
    return {"times": counted.times, "since": rfc3339(counted.since), "degraded_seconds": seconds}


def _known(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}
