"""Alertmanager's API v2: level-triggered, so what stands is pushed to every peer over and over.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, delivery reference §2.3.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from watcher.core.events import ENDS, OPENINGS
from watcher.core.model import Json, Severity
from watcher.core.words import rfc3339
from watcher.errors import SinkError
from watcher.ports import Notification, Traits
from watcher.sinks.alerts import alert, fingerprint, identity
from watcher.sinks.answers import check
from watcher.sinks.http import Secret, Sender, read_secret, read_secrets

_LASTS: Final = 4
"""A firing alert counts as resolved when it has not been pushed for so many intervals."""
_BATCH: Final = 500
_TEXT_LIMIT: Final = 4000


@dataclass(eq=False)
class Alertmanager:
    """Pushes to each of `urls`, which are the peers themselves: behind a balancer one would miss it.

    One alert a subject: the newest incident's. `every` is the interval of `restate`.
    """

    name: str
    sender: Sender
    urls: Sequence[Secret]
    headers: Mapping[str, Secret] = field(default_factory=dict)
    every: timedelta = timedelta(minutes=1)
    _standing: dict[str, str] = field(default_factory=dict)
    """Alert → its newest incident."""

    def __post_init__(self) -> None:
        self.traits = Traits(self.name, restated_every=self.every)

    async def send(self, notification: Notification) -> Json | None:
        """Succeeds when one peer has it: whoever missed it gets it when it is told again."""
        await self.restate([notification])
        return None

    async def restate(self, standing: Sequence[Notification]) -> Sequence[SinkError]:
        """Push all that stands or has just ended; returns why some peers do not have it."""
        alerts = self._news(standing)
        found = await asyncio.gather(*(self._push(url, alerts) for url in self.urls))
        failures = [error for error in found if error is not None]
        if len(failures) == len(self.urls):
            raise failures[0]
        return failures

    def _news(self, notifications: Iterable[Notification]) -> list[Json]:
        """Their alerts, without those of incidents that a newer one of the same subject has replaced."""
        newest: dict[str, Notification] = {}
        for one in sorted(notifications, key=lambda one: one.event.incident):
            same, incident = fingerprint(identity(one.event)), one.event.incident
            if incident >= self._standing.get(same, ""):
                newest[same] = one
                self._standing[same] = incident
                if one.event.edge in ENDS:
                    del self._standing[same]
        now = self.sender.clock.wall()
        return [each for one in newest.values() for each in self._alerts(one, now)]

    def _alerts(self, notification: Notification, now: datetime) -> Iterable[Json]:
        """A label that changes makes another alert, so the former severity's is resolved as well."""
        event = notification.event
        for severity in Severity:
            firing = event.edge not in ENDS and severity is event.severity
            was = event.was_critical or severity in (Severity.WARNING, event.severity)
            if firing or (was and event.edge not in OPENINGS):
                ends_at = rfc3339(now + _LASTS * self.every if firing else event.at)
                yield alert(notification, severity, ends_at, _TEXT_LIMIT)

    async def _push(self, secret: Secret, alerts: Sequence[Json]) -> SinkError | None:
        """Push to one peer; returns why it does not have it."""
        try:
            url, own = read_secret(secret), read_secrets(self.headers)
            headers = {"Content-Type": "application/json", **own}
            for start in range(0, len(alerts), _BATCH):
                body = msgspec.json.encode(alerts[start : start + _BATCH])
                answer = await self.sender.post(f"{url.rstrip('/')}/api/v2/alerts", body, headers)
                check(answer, self.sender.clock.wall(), [url, *own.values()])
        except SinkError as error:
            return error
        return None
