"""Durations and times as people write them: `90s`, `15m`, `1h30m`, `90d`, `2026-11-22T14:00:00Z`."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_N: Final = r"(\d{1,8})"
PATTERN: Final = rf"^(?=\d)(?:{_N}d)?(?:{_N}h)?(?:{_N}m)?(?:{_N}s)?(?:{_N}ms)?$"
LONGEST: Final = timedelta(days=3650)
_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


def parse_duration(text: str) -> timedelta:
    """Read whole numbers with a unit each, the largest unit first; raises ValueError."""
    found = re.fullmatch(PATTERN, text, re.ASCII)
    if found is None:
        raise ValueError("a duration is a number and a unit, such as 90s, 15m, 1h30m or 90d")
    counts = zip(found.groups("0"), _UNITS.values(), strict=True)
    total = sum((int(count) * unit for count, unit in counts), timedelta(0))
    if total > LONGEST:
        raise ValueError(f"a duration is at most {LONGEST.days}d")
    return total


def parse_time(text: str) -> datetime:
    """Read a time with its zone; raises ValueError or OverflowError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return at.astimezone(UTC)


def format_duration(duration: timedelta) -> str:
    """Write it so that `parse_duration` reads the same; below a millisecond is dropped."""
    words, rest = "", duration
    for name, unit in _UNITS.items():
        count, rest = divmod(rest, unit)
        words += f"{count}{name}" if count else ""
    return words or "0s"
