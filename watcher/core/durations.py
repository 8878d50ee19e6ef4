"""Durations as people write them: `90s`, `15m`, `1h30m`, `500ms`, `90d`."""

import re
from datetime import timedelta
from typing import Final

PATTERN: Final = r"^(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$"
LONGEST: Final = timedelta(days=3650)

_FORM: Final = re.compile(PATTERN, re.ASCII)
_UNITS: Final = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)


def parse_duration(text: str) -> timedelta:
    """Read whole numbers with a unit each, the largest unit first; raises ValueError."""
    found = _FORM.match(text) if len(text) <= 40 else None
    if found is None or text.endswith("\n"):
        raise ValueError("a duration is a number and a unit, such as 90s, 15m, 1h30m or 90d")
    try:
        total = sum(
            (
                unit * int(count or 0)
                for count, (_, unit) in zip(found.groups(), _UNITS, strict=True)
            ),
            timedelta(0),
        )
    except OverflowError:
        total = timedelta.max
    if total > LONGEST:
        raise ValueError(f"a duration is at most {LONGEST.days}d")
    return total


def format_duration(duration: timedelta) -> str:
    """Write it so that `parse_duration` reads the same; below a millisecond is dropped."""
    words, rest = [], max(duration, timedelta(0))
    for name, unit in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            words.append(f"{count}{name}")
    return "".join(words) or "0s"
