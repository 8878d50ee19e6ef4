"""Events as alerts, in the labels, texts and webhook body that Alertmanager's world knows.

Webhook version 4: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from watcher.core.events import ENDS, Event
from watcher.core.message import visible
from watcher.core.model import Json, Severity, Subject
from watcher.core.words import rfc3339
from watcher.ports import Notification

_NOT_ENDED: Final = "0001-01-01T00:00:00Z"


def identity(event: Event) -> Mapping[str, str]:
    """Labels that stay the same from the opening to the end, so that both are one alert."""
    subject = event.subject
    named = {
        "alertname": _alertname(event.type.partition(".")[0], subject),
        "cluster": subject.cluster,
        "namespace": subject.namespace,
        "deployment" if subject.cluster else "sink": subject.name,
    }
    return {name: visible(value) for name, value in named.items() if value}


def alert(notification: Notification, severity: Severity, ends_at: str, limit: int) -> Json:
    """One alert; numbers and reasons are in its annotations, since labels must not change.

    A `severity` other than the event's is that of before: its alert ends, the outage does not.
    """
    event, message = notification.event, notification.message
    goes_on = severity is not event.severity and event.edge not in ENDS
    lead = f"Not over, now {event.severity}: " if goes_on else ""
    texts = {"summary": message.title, "description": message.text}
    room = {"summary": 500, "description": limit}
    texts = {name: f"{lead}{visible(text, room[name])}" for name, text in texts.items()}
    return {
        "labels": {**identity(event), "severity": severity.value},
        "annotations": texts,
        "startsAt": rfc3339(event.opened_at),
        "endsAt": ends_at,
    }


def fingerprint(labels: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits that are the same for the same labels."""
    return hashlib.sha256(repr(sorted(labels.items())).encode()).hexdigest()[:16]


def webhook_body(notification: Notification, receiver: str, limit: int) -> Json:
    """The body of version 4, with the one alert that the event is about.

    Fingerprint and group leave out the severity, which may grow while the alert fires.
    """
    event, same = notification.event, identity(notification.event)
    status = "resolved" if event.edge in ENDS else "firing"
    ends_at = rfc3339(event.at) if event.edge in ENDS else _NOT_ENDED
    told = alert(notification, event.severity, ends_at, limit)
    group = ", ".join(f'{name}="{value}"' for name, value in sorted(same.items()))
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{group}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": same,
        "commonLabels": told["labels"],
        "commonAnnotations": told["annotations"],
        "externalURL": "",
        "alerts": [
            {"status": status, **told, "generatorURL": "", "fingerprint": fingerprint(same)}
        ],
    }


def _alertname(kind: str, subject: Subject) -> str:
    if not subject.cluster:
        return "WatcherTest" if kind == "test" else f"Watcher{kind.capitalize()}Failing"
    return "ClusterOutOfSight" if subject.is_cluster else "DeploymentDegraded"
