"""One attempt at a delivery: composed from its claim, and if need be anew or plainer, under its id."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from watcher.core.compose import compose
from watcher.core.delivery import Outcome, Part, delivery_id
from watcher.core.events import Event
from watcher.core.model import Json
from watcher.errors import SinkError
from watcher.ports import Claim, Clock, Notification, Sink

_LATE_AFTER: Final = timedelta(seconds=60)
_FOLLOWERS: Final = (Part.EDIT, Part.REPLY)
_Trouble = tuple[datetime, str]
"""What a sink was in before, and until when."""
# What odd data could trip in rendering: that one message is given up, and the queue goes on.
_BUGS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


async def attempt(
    sink: Sink, claim: Claim, clock: Clock, in_the_way: _Trouble, told: Sequence[Event] = ()
) -> Json | None:
    """Send it: anew where the message to follow is gone, and once in plain text.

    Of `told` see `Notification`. Returns the receipt that later parts refer to. Raises SinkError.
    """
    part, plain = claim.delivery.part, False
    if part in _FOLLOWERS and claim.thread is None:
        part = Part.POST
    while True:
        try:
            made = _notification(claim, part, plain, clock, in_the_way)
            return await sink.send(replace(made, told=tuple(told)))
        except SinkError as error:
            if error.outcome is Outcome.REPOST and part in _FOLLOWERS:
                part = Part.POST
            elif error.outcome is Outcome.BAD_PAYLOAD and not plain:
                plain = True
            else:
                raise
        except _BUGS as error:
            detail = f"cannot be rendered: {type(error).__name__}"
            raise SinkError("bug", Outcome.BAD_PAYLOAD, detail=detail) from error


def _notification(
    claim: Claim, part: Part, plain: bool, clock: Clock, in_the_way: _Trouble
) -> Notification:
    late, late_reason = lateness(claim, clock.now(), in_the_way)
    message = compose(
        claim.event, latest=claim.latest, part=part, covers=claim.covers, members=claim.members,
        now=clock.wall(), late=late, late_reason=late_reason,
    )  # fmt: skip
    maybe_since = claim.recorded_at if claim.ambiguous else None
    delivery, event = claim.delivery.id, claim.event
    return Notification(delivery, part, message, event, claim.thread, plain, maybe_since)


def notice(sink: Sink, event: Event, now: datetime, told: Sequence[Event] = ()) -> Notification:
    """An event for one sink, beside the queue: `now` is wall time. Of `told` see `Notification`."""
    name, part = sink.traits.name, Part.POST if sink.traits.chat else Part.EVENT
    message = compose(event, latest=event, part=part, now=now)
    delivery = delivery_id(event.id, name, part)
    return Notification(delivery, part, message, event, told=tuple(told))


def lateness(claim: Claim, now: datetime, in_the_way: _Trouble) -> tuple[timedelta | None, str]:
    """How late it is, if it is, and why: its own trouble, or what its sink was in meanwhile."""
    since = claim.waiting_since or claim.recorded_at
    until, trouble = in_the_way
    reason = claim.last_error or (trouble if since <= until else "")
    return (now - since if now - since > _LATE_AFTER else None), reason
