"""What a Deployment's own annotations ask for; a bad value is ignored and reported, never obeyed."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from watcher.core.durations import parse_duration
from watcher.core.policy import HealthPolicy

PREFIX = "deployment-watcher.dev/"
_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0", ""}


class Overrides(Struct, frozen=True):
    """One Deployment's exceptions from the policy."""

    ignore: bool = False
    degraded_for: timedelta | None = None
    """In place of `degraded_for` and `none_available_for`."""
    silence_until: datetime | None = None
    silence_reason: str = ""
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
    problems: list[str] = []
    ignore = annotations.get("ignore", "").strip().lower()
    if ignore not in _TRUE | _FALSE:
        problems.append("ignore: neither true nor false")
    degraded_for: timedelta | None = None
    if (text := annotations.get("degraded-for")) is not None:
        try:
            degraded_for = parse_duration(text)
        except ValueError as error:
            problems.append(f"degraded-for: {error}")
    silence_until: datetime | None = None
    if (text := annotations.get("silence-until")) is not None:
        try:
            silence_until = _parse_time(text)
        except ValueError:
            problems.append("silence-until: not a time such as 2026-11-22T14:00:00Z")
    return Overrides(
        ignore=ignore in _TRUE,
        degraded_for=degraded_for,
        silence_until=silence_until,
        silence_reason=annotations.get("silence-reason", ""),
        problems=tuple(problems),
    )


def _parse_time(text: str) -> datetime:
    at = datetime.fromisoformat(text.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
