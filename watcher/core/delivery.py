"""One piece of news for one sink: the rows of the outbox."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct


class Part(StrEnum):
    """Which piece of an event a delivery carries; chat sinks with threads know three."""

    EVENT = "event"
    POST = "post"
    EDIT = "edit"
    REPLY = "reply"


class DeliveryState(StrEnum):
    """Where an outbox row stands; the last six are final."""

    PENDING = "pending"
    INFLIGHT = "inflight"
    PARKED = "parked"
    DELIVERED = "delivered"
    DEAD = "dead"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    GROUPED = "grouped"
    """Told by a digest."""


class Outcome(StrEnum):
    """What a failed attempt means for its delivery and its sink."""

    RETRY = "retry"
    """Try again with backoff, at the soonest after `retry_after`."""
    UNREACHED = "unreached"
    """As retry; there was nobody to ask, so soon again, for the whole sink and at no cost."""
    RETRY_SLOWLY = "retry_slowly"
    """As retry, with minutes in between: a redirect, a workspace being migrated."""
    THROTTLED = "throttled"
    """As retry; the whole sink waits and no attempt is counted."""
    PARK = "park"
    """A human must act; the sink keeps its queue and probes slowly."""
    BAD_PAYLOAD = "bad_payload"
    """This message as it is will never be taken: once more in plain text, then dead."""
    REPOST = "repost"
    """The message to edit or reply to is gone: post anew."""


class Delivery(Struct, frozen=True):
    """One outbox row: one part of one event for one sink."""

    sink: str
    event: str
    incident: str
    sequence: int
    part: Part
    due: datetime
    state: DeliveryState = DeliveryState.PENDING
    reason: str = ""
    digest: str = ""

    @property
    def id(self) -> str:
        """The same on every attempt and after every restart."""
        return delivery_id(self.event, self.sink, self.part)


_DELIVERIES: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "deliveries.deployment-watcher.dev")


def delivery_id(event: str, sink: str, part: Part) -> str:
    """Name a delivery: uuid5 of (event, sink, part)."""
    return str(uuid.uuid5(_DELIVERIES, f"{event}/{sink}/{part}"))
