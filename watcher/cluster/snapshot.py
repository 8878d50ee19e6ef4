"""A Deployment as the API writes it → the dozen fields we read; no value makes this raise.

What does not keep to the API's types where it counts is `malformed`: only its identity is read.
"""

import sys
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from watcher.core.health import IN_FLIGHT
from watcher.core.model import Condition, DeploymentSnapshot

PREFIX: Final = "deployment-watcher.dev/"
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_NAMELESS: Final = "?"
"""Stands for a missing name: an empty one would mean the cluster itself."""
_REVISION: Final = "deployment.kubernetes.io/revision"
_DEADLINES: Final = {None: 600, 2**31 - 1: None}
"""What progressDeadlineSeconds means where it does not mean what it says."""
_FAULTS: Final[dict[str | None, str]] = {
    "Available": "False",
    "Progressing": "False",
    "ReplicaFailure": "True",
}
"""The conditions that count, and which status of each tells of a fault."""
_MOST_ANNOTATIONS, _LONGEST_ANNOTATION, _LONGEST_MESSAGE, _LONGEST_REASON = 20, 1024, 500, 100
_YEARS: Final = range(1970, 9000)
"""Outside of these a date is noise, and sums with it overflow."""

_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Long = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Time = Annotated[datetime, Meta(tz=True)]
_Limit = int | float | bool | Annotated[str, Meta(max_length=10_000)] | None


class _Metadata(Struct, gc=False, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: _Long | None = None
    creation_timestamp: _Time | None = None
    deletion_timestamp: Any = None
    annotations: dict[str, str] | None = None


class _RollingUpdate(Struct, gc=False, rename="camel"):
    max_unavailable: _Limit = None
    max_surge: _Limit = None


class _Strategy(Struct, gc=False, rename="camel"):
    type: str | None = None
    rolling_update: _RollingUpdate | None = None


class _Spec(Struct, gc=False, rename="camel"):
    replicas: _Count | None = None
    paused: bool | None = None
    strategy: _Strategy | None = None
    min_ready_seconds: _Count | None = None
    progress_deadline_seconds: _Count | None = None


class _Condition(Struct, gc=False, rename="camel"):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    last_transition_time: _Time | None = None
    last_update_time: _Time | None = None


class _Status(Struct, gc=False, rename="camel"):
    observed_generation: _Long | None = None
    replicas: _Count | None = None
    updated_replicas: _Count | None = None
    ready_replicas: _Count | None = None
    available_replicas: _Count | None = None
    conditions: list[_Condition] | None = None


class Object(Struct, gc=False, rename="camel"):
    """A Deployment, or whatever came in its place; msgspec skips all other fields unbuilt."""

    kind: str | None = None
    api_version: str | None = None
    metadata: _Metadata | None = None
    spec: _Spec | None = None
    status: _Status | None = None


_NO_METADATA, _NO_SPEC, _NO_STATUS = _Metadata(), _Spec(), _Status()
_NO_STRATEGY, _NO_LIMITS = _Strategy(), _RollingUpdate()


def from_plain(value: object) -> tuple[Object, str]:
    """Read plain JSON: the object, or only its identity and what is wrong with the rest."""
    try:
        seen = msgspec.convert(_tidied(value), Object)
        return seen, identity_fault(seen)
    except UNDECODABLE as error:
        why, _, where = str(error).partition(" - at `$.")
    top = _texts(value)
    own = _texts(value.get("metadata") if isinstance(value, dict) else None)
    metadata = _Metadata(
        own.get("name"), own.get("namespace"), own.get("uid"), own.get("resourceVersion")
    )
    seen = Object(top.get("kind"), top.get("apiVersion"), metadata)
    return seen, f"{where.rstrip('`')}: {why}".removeprefix(": ")


def _tidied(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Leave out what may be odd without the object being malformed (reference/health.md §2, §3.1)."""
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if isinstance(metadata := value.get("metadata"), dict):
        metadata = {**metadata, "annotations": _texts(metadata.get("annotations"))}
        if not _readable(metadata.get("creationTimestamp")):
            del metadata["creationTimestamp"]
        value["metadata"] = metadata
    spec, status = value.get("spec"), value.get("status")
    if isinstance(spec, dict) and isinstance(strategy := spec.get("strategy"), dict):
        limits = strategy.get("rollingUpdate")
        known = limits.items() if isinstance(limits, dict) else ()
        kept = {k: v for k, v in known if isinstance(v, int | str)}
        value["spec"] = {**spec, "strategy": {**strategy, "rollingUpdate": kept}}
    if isinstance(status, dict) and isinstance(found := status.get("conditions"), list):
        told = [_tidied_condition(entry) for entry in found if "type" in _texts(entry)]
        value["status"] = {**status, "conditions": told}
    return value


def _tidied_condition(entry: object) -> dict[str, str]:
    return {k: v for k, v in _texts(entry).items() if not k.endswith("Time") or _readable(v)}


def _readable(time: object) -> bool:
    try:
        msgspec.convert(time, _Time | None)
    except UNDECODABLE:
        return False
    return True


def snapshot(seen: Object, cluster: str, malformed: str) -> DeploymentSnapshot:
    """Keep what is read; `malformed` is what is wrong with the object, if anything is."""
    metadata = seen.metadata or _NO_METADATA
    spec = seen.spec or _NO_SPEC
    status = seen.status or _NO_STATUS
    strategy = spec.strategy or _NO_STRATEGY
    limits = strategy.rolling_update or _NO_LIMITS
    recreate = strategy.type == "Recreate"
    namespace = sys.intern(metadata.namespace or "default")
    name = metadata.name or _NAMELESS
    desired = 1 if spec.replicas is None else spec.replicas
    deadline = spec.progress_deadline_seconds
    revision, annotations = _annotations(metadata.annotations)
    conditions = _conditions(status.conditions)
    return DeploymentSnapshot(  # in the order of its fields: by name is half as fast
        cluster,
        namespace,
        name,
        metadata.uid or f"{namespace}/{name}",
        metadata.resource_version or "",
        metadata.generation,
        status.observed_generation or 0,
        _time(metadata.creation_timestamp),
        revision,
        annotations,
        metadata.deletion_timestamp is not None,
        spec.paused is True,
        recreate,
        desired,
        0 if recreate else _max_unavailable(limits.max_unavailable, limits.max_surge, desired),
        spec.min_ready_seconds or 0,
        _DEADLINES.get(deadline, deadline),
        status != _NO_STATUS,
        status.replicas or 0,
        status.updated_replicas or 0,
        status.ready_replicas or 0,
        status.available_replicas or 0,
        conditions.get("Available"),
        _available_since(status.conditions),
        conditions.get("Progressing"),
        conditions.get("ReplicaFailure"),
        malformed,
    )


def identity_fault(seen: Object) -> str:
    """Say why this is no Deployment with a name, if it is none."""
    if seen.kind is not None and seen.kind != "Deployment":
        return "kind is not Deployment"
    return "" if seen.metadata and seen.metadata.name else "metadata.name is missing"


def _annotations(found: dict[str, str] | None) -> tuple[int, dict[str, str] | None]:
    """Give the revision, and what is addressed to us."""
    if not found:
        return 0, None
    ours: dict[str, str] | None = None
    for key, value in found.items():
        if key.startswith(PREFIX):
            ours = ours or {}
            if len(ours) < _MOST_ANNOTATIONS:
                ours[key[len(PREFIX) :]] = value[:_LONGEST_ANNOTATION]
    return _number(found.get(_REVISION, "")) or 0, ours


@lru_cache(maxsize=256, typed=True)
def _max_unavailable(most: object, surge: object, desired: int) -> int:
    """Resolve to pods as the API does: unavailable rounds down, surge up, both zero means one."""
    pods = _hundredths(most, desired) // 100
    if pods == 0 and _hundredths(surge, desired) == 0:
        pods = 1
    return min(pods, desired)


def _hundredths(limit: object, desired: int) -> int:
    """Pods in hundredths; a limit that is missing or unreadable is the API's default, 25%."""
    if type(limit) is int and limit >= 0:
        return limit * 100
    percent = _number(limit[:-1]) if isinstance(limit, str) and limit.endswith("%") else None
    return desired * (25 if percent is None else percent)


def _number(text: str) -> int | None:
    return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else None


def _conditions(found: list[_Condition] | None) -> dict[str | None, Condition]:
    """Give the first of each type that counts."""
    kept: dict[str | None, Condition] = {}
    for seen in found or ():
        fault = _FAULTS.get(seen.type)
        if fault and seen.type not in kept:
            kept[seen.type] = _condition(seen, seen.status == fault)
    return kept


def _available_since(found: list[_Condition] | None) -> datetime | None:
    for seen in found or ():
        if seen.type == "Available" and seen.status == "True":
            return _time(seen.last_transition_time)
    return None


def _condition(seen: _Condition, telling: bool) -> Condition:
    """Keep words and times only where somebody will ask for them: most share a few values."""
    status, reason = seen.status or "", (seen.reason or "")[:_LONGEST_REASON]
    if telling:
        message = (seen.message or "").partition("\n")[0][:_LONGEST_MESSAGE]
        return Condition(status, reason, message, _time(seen.last_transition_time))
    if reason in IN_FLIGHT:
        return Condition(status, reason, updated_at=_time(seen.last_update_time))
    return _shared(status, reason)


_shared: Final = lru_cache(maxsize=256)(Condition)


def _time(value: datetime | None) -> datetime | None:
    return value if value is not None and value.year in _YEARS else None


def _texts(value: object) -> dict[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
