"""Alertmanager's API v2: level-triggered, so what stands is pushed to every peer over and over.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, delivery reference §2.3.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Final

import msgspec

from watcher.core.events import ENDS
from watcher.core.model import Json, Severity
from watcher.core.words import rfc3339
from watcher.errors import Outcome, SinkError
from watcher.ports import TOLD_AGAIN_FOR, UNTOLD, Notification, Traits
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
        """Succeeds when one peer has it: whoever missed it gets it when it is told again.

        What newer news have overtaken says nothing, and its receipt says so.
        """
        alerts = self._alerts([notification], notification.event.at)
        await self._push_to_all(alerts)
        return None if alerts else UNTOLD

    async def restate(self, standing: Sequence[Notification]) -> Sequence[SinkError]:
        """Push all that stands or has just ended; returns why some peers do not have it."""
        ended_since = self.sender.clock.wall() - TOLD_AGAIN_FOR
        return await self._push_to_all(self._alerts(standing, ended_since))

    def _alerts(self, told: Iterable[Notification], since: datetime) -> Sequence[Json]:
        """What fires, and what does no more `since`.

        A label that changes makes another alert, so that of the former severity is resolved as well;
        but only what has fired is: one that never did would be an outage that ends twice.
        """
        fires_until = self.sender.clock.wall() + _LASTS * self.every
        return [
            alert(one, severity, rfc3339(ended_at or fires_until), _TEXT_LIMIT)
            for one in self._newest(told)
            for severity, ended_at in _fired(one).items()
            if ended_at is None or ended_at >= since
        ]

    def _newest(self, notifications: Iterable[Notification]) -> Iterable[Notification]:
        """Those of incidents that no newer one of the same subject has replaced."""
        newest: dict[str, Notification] = {}
        for one in sorted(notifications, key=lambda one: one.event.incident):
            same, incident = fingerprint(identity(one.event)), one.event.incident
            if incident >= self._standing.get(same, ""):
                newest[same] = one
                self._standing[same] = incident
                if one.event.edge in ENDS:
                    del self._standing[same]
        return newest.values()

    async def _push_to_all(self, alerts: Sequence[Json]) -> Sequence[SinkError]:
        found = await asyncio.gather(*(self._push(url, alerts) for url in self.urls))
        failures = [error for error in found if error is not None]
        if len(failures) == len(self.urls):
            answered = (error for error in failures if error.outcome is not Outcome.UNREACHED)
            raise next(answered, failures[0])  # who was reached is not to be asked every 2 s
        return failures

    async def _push(self, secret: Secret, alerts: Sequence[Json]) -> SinkError | None:
        """Push to one peer; returns why it does not have it."""
        try:
            url, own = read_secret(secret), read_secrets(self.headers)
            headers = {"Content-Type": "application/json", **own}
            for start in range(0, max(len(alerts), 1), _BATCH):  # it answers, if only to nothing
                body = msgspec.json.encode(alerts[start : start + _BATCH])
                answer = await self.sender.post(f"{url.rstrip('/')}/api/v2/alerts", body, headers)
                check(answer, self.sender.clock.wall(), [url, *own.values()])
        except SinkError as error:
            return error
        return None


def _fired(one: Notification) -> Mapping[Severity, datetime | None]:
    """Under which severities the incident has fired here, and since when each does no more.

    Nothing of news that came after newer ones: what they said stands.
    """
    known = (*one.told, one.event)
    if one.told and one.event.sequence < one.told[-1].sequence:
        return {}
    over = [event.at for event in known[1:]]
    return {
        event.severity: ended_at
        for event, ended_at in zip_longest(known, over)
        if event.edge not in ENDS
    }
