"""Rows of the version before can be read, and that version can read ours."""

from datetime import UTC, datetime, timedelta

import msgspec

from watcher.core.baseline import began_at, resume
from watcher.core.model import Assessment, Baseline, DeploymentSnapshot, Health, Severity, Shortfall
from watcher.core.phases import Fall, Firing, History, Pending, Phase, Steady

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


class FormerBaseline(msgspec.Struct, frozen=True):
    """As it was before shortfalls were kept."""

    settled: bool = False
    desired: int | None = None
    floor: int = 0
    serving: int = 0
    raised_to: int | None = None
    raised_at: datetime | None = None
    progressing_since: datetime | None = None
    progressed_at: datetime | None = None


def test_a_baseline_without_dates_is_read() -> None:
    """What it has waited for since then is dated so."""
    former = FormerBaseline(True, 3, 2, 3, progressing_since=NOW, progressed_at=NOW)
    baseline = msgspec.json.decode(msgspec.json.encode(former), type=Baseline)
    now, shown = NOW + timedelta(minutes=5), DeploymentSnapshot("c", "shop", "web", "u", desired=3)
    resumed = resume(baseline, Steady(), shown, now, timedelta(0))
    verdict = Assessment(Health.DEGRADED, "no_progress", severity=Severity.WARNING)
    assert (resumed.progressed_at, began_at(resumed, verdict)) == (now, NOW)


def test_the_former_version_reads_a_baseline_with_dates() -> None:
    baseline = Baseline(
        True, 3, 2, 3, moved_at=NOW, best=(3, 2, 2, 0, 0), lowest=(3, 0, 0, 0, 0),
        shortfall=Shortfall(NOW, serving_since=NOW),
    )  # fmt: skip
    former = msgspec.json.decode(msgspec.json.encode(baseline), type=FormerBaseline)
    assert former == FormerBaseline(True, 3, 2, 3)
    assert msgspec.json.decode(msgspec.json.encode(baseline), type=Baseline) == baseline


def test_phases_without_a_true_start_are_read() -> None:
    """A hold that was begun by the former version is told by its own start."""
    row = (
        b'{"type":"pending","since":"2026-11-22T14:00:00Z","due":"2026-11-22T14:01:00Z","hold":"PT60S",'
        b'"reason":"below_minimum","severity":"warning","message":""}'
    )
    pending = msgspec.json.decode(row, type=Phase)
    assert isinstance(pending, Pending)
    assert pending.began == NOW
    row = (
        b'{"type":"firing","incident":{"id":"i","opened_at":"2026-11-22T14:01:00Z","severity":"warning",'
        b'"since":"2026-11-22T14:00:00Z","reason":"below_minimum","message":""}}'
    )
    firing = msgspec.json.decode(row, type=Phase)
    assert isinstance(firing, Firing)
    assert (firing.settling, firing.incident.changed_at, firing.incident.wavers) == (
        None,
        None,
        False,
    )
