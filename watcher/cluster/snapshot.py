"""A Deployment as the API writes it → the dozen fields we read; no value makes this raise.

What does not keep to the API's types where it counts is `malformed`: only its identity is read.
"""

import sys
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from watcher.core.annotations import PREFIX
from watcher.core.health import IN_FLIGHT
from watcher.core.model import Condition, DeploymentSnapshot

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_NAMELESS: Final = "?"
"""Stands for a missing name: an empty one would mean the cluster itself."""
_REVISION: Final = "deployment.kubernetes.io/revision"
_DEADLINES: Final = {None: 600, 2**31 - 1: None}
"""What progressDeadlineSeconds means where it does not mean what it says."""
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
    creation_timestamp: str | None = None
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
    last_transition_time: str | None = None
    last_update_time: str | None = None


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
    name, namespace, uid = map(own.get, ("name", "namespace", "uid"))
    metadata = _Metadata(name, namespace, uid, own.get("resourceVersion"))
    seen = Object(top.get("kind"), top.get("apiVersion"), metadata)
    return seen, f"{where.rstrip('`')}: {why}".removeprefix(": ")


def _tidied(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Leave out what may be odd without the object being malformed (reference/health.md §2, §3.1)."""
    if not isinstance(value, dict):
        return value
    value = dict(value)
    if isinstance(metadata := value.get("metadata"), dict):
        metadata = {**metadata, "annotations": _texts(metadata.get("annotations"))}
        if not isinstance(metadata.get("creationTimestamp"), str):
            metadata.pop("creationTimestamp", None)
        value["metadata"] = metadata
    spec, status = value.get("spec"), value.get("status")
    if isinstance(spec, dict) and isinstance(strategy := spec.get("strategy"), dict):
        limits = strategy.get("rollingUpdate")
        known = limits.items() if isinstance(limits, dict) else ()
        kept = {k: v for k, v in known if isinstance(v, int | str)}
        value["spec"] = {**spec, "strategy": {**strategy, "rollingUpdate": kept}}
    if isinstance(status, dict) and isinstance(found := status.get("conditions"), list):
        told = [texts for entry in found if "type" in (texts := _texts(entry))]
        value["status"] = {**status, "conditions": told}
    return value


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
    available, available_since, progressing, failure = _conditions(status.conditions)
    return DeploymentSnapshot(  # in the order of its fields: by name is half as fast
        cluster, namespace, name, metadata.uid or f"{namespace}/{name}",
        metadata.resource_version or "", metadata.generation, status.observed_generation or 0,
        _time(metadata.creation_timestamp), revision, annotations,
        metadata.deletion_timestamp is not None, spec.paused is True, recreate, desired,
        0 if recreate else _max_unavailable(limits.max_unavailable, limits.max_surge, desired),
        spec.min_ready_seconds or 0, _DEADLINES.get(deadline, deadline), status != _NO_STATUS,
        status.replicas or 0, status.updated_replicas or 0, status.ready_replicas or 0,
        status.available_replicas or 0, available, available_since, progressing, failure, malformed,
    )  # fmt: skip


def identity_fault(seen: Object) -> str:
    """Say why this is no Deployment with a name, if it is none."""
    if seen.kind is not None and seen.kind != "Deployment":
        return "kind is not Deployment"
    return "" if seen.metadata and seen.metadata.name else "metadata.name is missing"


def _annotations(found: dict[str, str] | None) -> tuple[int, dict[str, str] | None]:
    """Give the revision, and what is addressed to us."""
    if not found:
        return 0, None
    revision = _number(found.get(_REVISION, "")) or 0
    if revision and len(found) == 1:
        return revision, None  # as most are
    ours: dict[str, str] | None = None
    for key, value in found.items():
        if key.startswith(PREFIX):
            ours = ours or {}
            if len(ours) < _MOST_ANNOTATIONS:
                ours[key[len(PREFIX) :]] = value[:_LONGEST_ANNOTATION]
    return revision, ours


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


def _conditions(
    found: list[_Condition] | None,
) -> tuple[Condition | None, datetime | None, Condition | None, Condition | None]:
    """Give Available and since when it is true, Progressing and ReplicaFailure; of each the first."""
    available = available_since = progressing = failure = None
    for seen in found or ():
        kind = seen.type
        if kind == "Available":
            available = available or _condition(seen, "False")
            if seen.status == "True" and available_since is None:
                available_since = _time(seen.last_transition_time)
        elif kind == "Progressing":
            progressing = progressing or _condition(seen, "False")
        elif kind == "ReplicaFailure":
            failure = failure or _condition(seen, "True")
    return available, available_since, progressing, failure


def _condition(seen: _Condition, fault: str) -> Condition:
    """Keep words and times only where somebody will ask for them: most share a few values.

    `fault` is the status by which this type tells of a fault.
    """
    status, reason = seen.status or "", seen.reason or ""
    if len(reason) > _LONGEST_REASON:
        reason = reason[:_LONGEST_REASON]
    if status == fault:
        said = seen.message or ""
        message = said.partition("\n")[0][:_LONGEST_MESSAGE]
        message += "…" if len(message) < len(said.rstrip()) else ""
        return Condition(status, reason, message, _time(seen.last_transition_time))
    if reason in IN_FLIGHT:
        return Condition(status, reason, "", None, _time(seen.last_update_time))
    return _shared(status, reason)


_shared: Final = lru_cache(maxsize=256)(Condition)


@lru_cache(maxsize=4096)  # the same few come with every event, and most share their second
def _time(text: str | None) -> datetime | None:
    """Read a time, None unless it is a plausible one."""
    try:
        value = msgspec.convert(text, _Time)
    except UNDECODABLE:
        return None
    return value if value.year in _YEARS else None


def _texts(value: object) -> dict[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
