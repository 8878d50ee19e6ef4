"""A timeline as people write it: JSON lines of what a cluster did, and when."""

from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from watcher.cluster.decode import snapshot_from
from watcher.config import Config, HealthSettings, HeartbeatSettings
from watcher.core.durations import parse_time
from watcher.core.model import DeploymentSnapshot, Json
from watcher.core.policy import ClusterPolicy, HealthPolicy
from watcher.errors import WatcherError

CLUSTER: Final = "default"
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_FAR: Final = 1e11  # seconds: three thousand years
_WITH_OBJECT: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
_TYPES: Final = _WITH_OBJECT | {"LIST", "API_DOWN", "API_UP", "RESTART", "END"}
_HEADER: Final = {"clock", "policy"}
_KEYS: Final = {
    **dict.fromkeys(_WITH_OBJECT, ("object",)), "LIST": ("items",), "RESTART": ("down",),
}  # fmt: skip
_MEANINGS: Final = {
    "at": "when, in seconds or as 2026-11-22T14:00:00Z",
    "object": "the Deployment, as `kubectl get deployment NAME -o json` prints it",
    "items": "all Deployments there are, as in `kubectl get deployments -A -o json`",
}


class ReplayError(WatcherError):
    """A line of the timeline cannot be used."""


class Step(msgspec.Struct, frozen=True):
    """One record of the timeline."""

    at: datetime
    type: str
    snapshots: tuple[DeploymentSnapshot, ...] = ()
    down: timedelta = timedelta(0)


class Timeline(msgspec.Struct, frozen=True):
    """A timeline as read: `at` of what is printed counts from `base`."""

    base: datetime
    health: HealthPolicy
    heartbeat: ClusterPolicy
    steps: tuple[Step, ...]


def read(lines: Iterable[str], place: str = "timeline") -> Timeline:
    """Read a whole timeline; raises ReplayError at the first line of `place` that cannot be used."""
    base: datetime | None = None
    policies = HealthPolicy(), ClusterPolicy()
    steps: list[Step] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
            if "type" not in row and not steps:
                _refuse_others(row, _HEADER)
                base = _time(row["clock"], None) if "clock" in row else base
                policies = _policies(row.get("policy", {}))
                continue
            step = _step(row, base)
            if steps and step.at < steps[-1].at:
                raise ValueError("`at` goes back")
            if not 1970 <= step.at.year <= (step.at + step.down).year < 9000:
                raise ValueError("`at` is too far away to be meant")
        except (ValueError, OverflowError) as error:  # ValueErrors: msgspec's and pydantic's, too
            raise ReplayError(f"{place}:{number}: {error}") from error
        base = step.at if base is None and isinstance(row["at"], str) else base
        steps.append(step)
    return Timeline(base or _START, *policies, tuple(steps))


def _policies(keys: Any) -> tuple[HealthPolicy, ClusterPolicy]:  # noqa: ANN401 - any JSON
    """The keys of `health` and `heartbeat`, side by side, as the configuration spells them."""
    if not isinstance(keys, dict):
        raise ValueError("`policy` must be an object")
    health, heartbeat = (
        {key: keys[key] for key in settings.model_fields if key in keys}
        for settings in (HealthSettings, HeartbeatSettings)
    )
    if unknown := keys.keys() - health.keys() - heartbeat.keys():
        raise ValueError(f"policy: unknown key {', '.join(sorted(unknown))}")
    config = Config(health=HealthSettings(**health), heartbeat=HeartbeatSettings(**heartbeat))
    return config.health_policy(), config.cluster_policy()


def _refuse_others(row: Json, known: Set[str]) -> None:
    if unknown := row.keys() - known:
        names = ", ".join(sorted(known))
        raise ValueError(f"unknown key {', '.join(sorted(unknown))}; known here are {names}")


def _step(row: Json, base: datetime | None) -> Step:
    kind = row.get("type")
    if kind not in _TYPES:
        raise ValueError(f"unknown type {kind!r}, known are {', '.join(sorted(_TYPES))}")
    _refuse_others(row, {"at", "type", *_KEYS.get(kind, ())})
    for key in ("at", *_KEYS.get(kind, ())):
        if key not in row and key != "down":
            raise ValueError(f"`{key}` is missing: {_MEANINGS[key]}")
    items = row.get("items", [row["object"]] if "object" in row else [])
    if not isinstance(items, list):
        raise ValueError("`items` must be a list")
    snapshots = tuple(snapshot_from(item, CLUSTER) for item in items)
    down = row.get("down", 0)
    if isinstance(down, bool) or not isinstance(down, int | float) or not 0 <= down < _FAR:
        raise ValueError("`down` must be a number of seconds")
    return Step(_time(row["at"], base or _START), kind, snapshots, timedelta(seconds=down))


def _time(value: Any, base: datetime | None) -> datetime:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return parse_time(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or base is None or abs(value) > _FAR:
        raise ValueError(f"{value!r} is not a time")
    return base + timedelta(seconds=value)
