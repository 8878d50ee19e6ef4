"""Rows of the version before can be read, and that version can read ours."""

from datetime import UTC, datetime, timedelta

import msgspec

from watcher.core.model import Severity
from watcher.core.phases import Fall, History, Pending, Phase, Steady

NOW = datetime(2026, 11, 22, 14, tzinfo=UTC)


class FormerHistory(msgspec.Struct, frozen=True):
    """As it was before falls were kept."""

    episodes: tuple[datetime, ...] = ()
    recoveries: tuple[datetime, ...] = ()


class FormerPending(msgspec.Struct, tag="pending"):
    """As it was then."""

    since: datetime
    due: datetime
    hold: timedelta
    reason: str
    severity: Severity
    message: str
    blocked: bool = False
    history: FormerHistory = FormerHistory()


def test_a_history_without_falls_is_read() -> None:
    row = b'{"type":"steady","history":{"episodes":["2026-11-22T14:00:00Z"],"recoveries":[]}}'
    assert msgspec.json.decode(row, type=Phase) == Steady(History((NOW,)))


def test_the_former_version_reads_a_history_with_falls() -> None:
    """It goes on with what it knows: the starts of episodes and its own hold."""
    minute = timedelta(minutes=1)
    phase = Pending(
        NOW, NOW + minute, minute, "none_available", Severity.CRITICAL, "0 of 3", flaps_at=NOW,
        history=History((NOW,), (), (Fall(NOW, minute),), NOW),
    )  # fmt: skip
    former = msgspec.json.decode(msgspec.json.encode(phase), type=FormerPending)
    assert (former.due, former.history.episodes) == (phase.due, (NOW,))
