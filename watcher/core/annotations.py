"""What a Deployment's own annotations ask for; a bad value is ignored and reported, never obeyed."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.durations import parse_duration
from watcher.core.policy import HealthPolicy

PREFIX = "deployment-watcher.dev/"
_LONGEST_NAME: Final = 63
"""As Kubernetes has it."""


class Overrides(Struct, frozen=True):
    """One Deployment's exceptions from the policy."""

    ignore: bool = False
    degraded_for: timedelta | None = None
    """In place of `degraded_for` and `none_available_for`."""
    silence_until: datetime | None = None
    problems: tuple[str, ...] = ()

    def apply(self, policy: HealthPolicy) -> HealthPolicy:
        """The policy as it is for this Deployment."""
        if self.degraded_for is None:
            return policy
        return replace(policy, degraded_for=self.degraded_for, none_available_for=self.degraded_for)

    def silenced(self, now: datetime) -> bool:
        """Whether nobody is to be told of an opening now."""
        return self.silence_until is not None and now < self.silence_until


NO_OVERRIDES = Overrides()


def read(annotations: Mapping[str, str] | None) -> Overrides:
    """Read the annotations, given without their prefix."""
    if not annotations:
        return NO_OVERRIDES
    values: dict[str, Any] = {}
    unknown = sorted(annotations.keys() - _PARSERS.keys())
    problems = [f"{name[:_LONGEST_NAME]}: has no effect in this version" for name in unknown]
    for name, parse in _PARSERS.items():
        try:
            if name in annotations:
                values[name.replace("-", "_")] = parse(annotations[name])
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return Overrides(**values, problems=tuple(problems))


def _parse_flag(text: str) -> bool:
    flag = text.strip().lower()
    if flag not in ("true", "yes", "1", "false", "no", "0", ""):
        raise ValueError("neither true nor false")
    return flag in ("true", "yes", "1")


def _parse_time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a time such as 2026-11-22T14:00:00Z") from None


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "ignore": _parse_flag,
    "degraded-for": parse_duration,
    "silence-until": _parse_time,
}
