"""Bytes of the API → snapshots: typed and pruned on arrival, and no JSON value makes it raise."""

import sys
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, ValidationError

from watcher.cluster import wire
from watcher.core.health import IN_FLIGHT
from watcher.core.model import Condition, DeploymentSnapshot
from watcher.errors import Protocol
from watcher.ports import Applied, Deleted

PREFIX: Final = "deployment-watcher.dev/"
NAMELESS: Final = "?"
"""Stands for a missing name: an empty one would mean the cluster itself."""
_REVISION: Final = "deployment.kubernetes.io/revision"
_DEADLINES: Final = {None: 600, 2**31 - 1: None}
"""What progressDeadlineSeconds means where it does not mean what it says."""
_MOST_ANNOTATIONS, _LONGEST_ANNOTATION, _LONGEST_MESSAGE = 20, 1024, 500
_LONGEST_REASON = 100
_YEARS: Final = range(1970, 9000)
"""Outside of these a date is noise, and sums with it overflow."""

_PLACES: Final = {"Available": 0, "Progressing": 1, "ReplicaFailure": 2}
_TELLING: Final = ("False", "False", "True")
"""Which status makes a condition tell of a fault, in the order of `_PLACES`."""


class Page(Struct, frozen=True):
    """One page of a list; `next` is the continue token, empty on the last page."""

    version: str
    next: str
    snapshots: tuple[DeploymentSnapshot, ...]


class Bookmark(Struct, frozen=True, gc=False):
    """The stream is up to date as of this resource version."""

    version: str


class Status(Struct, frozen=True, gc=False):
    """The API's own account of a failure; `retry_after` is in seconds."""

    code: int = 0
    reason: str = ""
    message: str = ""
    retry_after: float | None = None


class Unreadable(Struct, frozen=True, gc=False):
    """A line that is no event of a Deployment; `reason` quotes nothing of it."""

    reason: str


_LINES: Final = msgspec.json.Decoder(wire.Line)
_OBJECTS: Final = msgspec.json.Decoder(wire.Object)
_LISTS: Final = msgspec.json.Decoder(wire.List)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NO_METADATA, _NO_SPEC, _NO_STATUS = wire.Metadata(), wire.Spec(), wire.Status()
_NO_STRATEGY, _NO_LIMITS = wire.Strategy(), wire.RollingUpdate()


def decode_line(
    line: bytes, scope: str, cluster: str
) -> Applied | Deleted | Bookmark | Status | Unreadable:
    """Read one line of a watch stream."""
    try:
        seen = _LINES.decode(line)
    except ValidationError:
        return _decode_plainly(line, scope, cluster)
    except _UNDECODABLE as error:
        return Unreadable(f"no JSON: {type(error).__name__}")
    if seen.type == "ERROR":
        return _decode_plainly(line, scope, cluster)
    return _event(seen.type, seen.object, "", scope, cluster)


def decode_page(body: bytes, cluster: str) -> Page:
    """Read one page of a list; raises Protocol unless it is a whole and a versioned one."""
    try:
        page = _LISTS.decode(body)
    except _UNDECODABLE as error:
        raise Protocol(f"the list is not readable: {type(error).__name__}") from None
    if page.kind != "DeploymentList" or page.items is UNSET:
        raise Protocol("the answer is no DeploymentList")
    if page.metadata is None or not page.metadata.resource_version:
        raise Protocol("the list has no metadata.resourceVersion")
    return Page(
        page.metadata.resource_version,
        page.metadata.next or "",
        tuple(_decode_item(item, cluster) for item in page.items or ()),
    )


def decode_status(value: object) -> Status:
    """Read a Status object of the API as far as it goes."""
    if not isinstance(value, dict):
        return Status()
    code, reason, message = (value.get(key) for key in ("code", "reason", "message"))
    details = value.get("details")
    after = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return Status(
        code if type(code) is int else 0,
        reason if isinstance(reason, str) else "",
        message if isinstance(message, str) else "",
        float(after) if type(after) is int and 0 <= after < 10**6 else None,
    )


def snapshot_from(obj: object, cluster: str) -> DeploymentSnapshot:
    """Read a Deployment from plain JSON; anything else becomes a snapshot that is `malformed`."""
    complaints: list[str] = []
    seen = wire.mend(wire.Object, obj, "it", complaints)
    return _snapshot(seen, cluster, complaints[0] if complaints else "")


def _decode_item(item: Raw, cluster: str) -> DeploymentSnapshot:
    try:
        return _snapshot(_OBJECTS.decode(item), cluster, "")
    except _UNDECODABLE:
        return snapshot_from(_plain(item), cluster)


def _plain(text: Raw) -> object:
    try:
        return msgspec.json.decode(text)
    except _UNDECODABLE:
        return None


def _decode_plainly(
    line: bytes, scope: str, cluster: str
) -> Applied | Deleted | Bookmark | Status | Unreadable:
    try:
        seen = msgspec.json.decode(line, type=wire.PlainLine)
    except ValidationError:
        return Unreadable("no watch event")
    except _UNDECODABLE as error:
        return Unreadable(f"no JSON: {type(error).__name__}")
    if seen.type == "ERROR":
        return decode_status(seen.object)
    complaints: list[str] = []
    mended = wire.mend(wire.Object, seen.object, "it", complaints)
    return _event(seen.type, mended, complaints[0] if complaints else "", scope, cluster)


def _event(
    kind: str, seen: wire.Object, malformed: str, scope: str, cluster: str
) -> Applied | Deleted | Bookmark | Status | Unreadable:
    if (seen.kind or "Deployment", seen.api_version or "apps/v1") != ("Deployment", "apps/v1"):
        return Unreadable("no Deployment of apps/v1")
    metadata = seen.metadata or _NO_METADATA
    if kind == "BOOKMARK":
        return Bookmark(metadata.resource_version or "")
    if not metadata.name:
        return Unreadable("a Deployment without a name")
    if kind == "MODIFIED" or kind == "ADDED":
        return Applied(scope, _snapshot(seen, cluster, malformed))
    if kind == "DELETED":
        return Deleted(scope, _snapshot(seen, cluster, malformed))
    return Unreadable("unknown event type")


def _snapshot(seen: wire.Object, cluster: str, malformed: str) -> DeploymentSnapshot:
    metadata = seen.metadata or _NO_METADATA
    spec = seen.spec or _NO_SPEC
    status = seen.status or _NO_STATUS
    strategy = spec.strategy or _NO_STRATEGY
    limits = strategy.rolling_update or _NO_LIMITS
    recreate = strategy.type == "Recreate"
    namespace = sys.intern(metadata.namespace or "default")
    name = metadata.name or NAMELESS
    desired = 1 if spec.replicas is None else spec.replicas
    deadline = spec.progress_deadline_seconds
    revision, annotations = _annotations(metadata.annotations)
    available, progressing, failure = _conditions(status.conditions)
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
        _max_unavailable(limits.max_unavailable, limits.max_surge, 0 if recreate else desired),
        spec.min_ready_seconds or 0,
        _DEADLINES.get(deadline, deadline),
        status != _NO_STATUS,
        status.replicas or 0,
        status.updated_replicas or 0,
        status.ready_replicas or 0,
        status.available_replicas or 0,
        available,
        progressing,
        failure,
        malformed or _identity_fault(seen),
    )


def _identity_fault(seen: wire.Object) -> str:
    if seen.kind is not None and seen.kind != "Deployment":
        return "kind is not Deployment"
    return "" if seen.metadata and seen.metadata.name else "metadata.name is missing"


def _annotations(found: dict[str, str] | None) -> tuple[int, dict[str, str] | None]:
    """Give the revision, and what is addressed to us."""
    if not found:
        return 0, None
    revision = found.get(_REVISION, "")
    ours: dict[str, str] | None = None
    for key, value in found.items():
        if key.startswith(PREFIX):
            ours = ours or {}
            if len(ours) < _MOST_ANNOTATIONS:
                ours[key[len(PREFIX) :]] = value[:_LONGEST_ANNOTATION]
    return _whole(revision) or 0, ours


@lru_cache(maxsize=1024)
def _max_unavailable(most: int | str | None, surge: int | str | None, desired: int) -> int:
    """Resolve to pods as the API does: unavailable rounds down, surge up, both zero means one."""
    pods = _hundredths(most, desired) // 100
    if pods == 0 and _hundredths(surge, desired) == 0:
        pods = 1
    return min(pods, desired)


def _hundredths(limit: int | str | None, desired: int) -> int:
    """Pods in hundredths; a limit that is missing or unreadable is the API's default, 25%."""
    if isinstance(limit, int):
        return limit * 100 if limit >= 0 else desired * 25
    percent = _whole(limit[:-1]) if limit and limit[-1] == "%" else None
    return desired * (25 if percent is None else percent)


def _whole(text: str) -> int | None:
    return int(text) if len(text) < 10 and text.isascii() and text.isdigit() else None


def _conditions(found: list[wire.Condition] | None) -> list[Condition | None]:
    """Give Available, Progressing and ReplicaFailure, the first of each."""
    kept: list[Condition | None] = [None, None, None]
    for seen in found or ():
        place = _PLACES.get(seen.type)
        if place is not None and kept[place] is None:
            kept[place] = _condition(seen, place)
    return kept


def _condition(seen: wire.Condition, place: int) -> Condition:
    """Keep words and times only where somebody will ask for them: most share a few values."""
    if seen.status == _TELLING[place]:
        return Condition(
            sys.intern(seen.status),
            sys.intern((seen.reason or "")[:_LONGEST_REASON]),
            (seen.message or "").partition("\n")[0][:_LONGEST_MESSAGE],
            _time(seen.last_transition_time),
        )
    plain = _plain_condition(seen.status or "", (seen.reason or "")[:_LONGEST_REASON])
    if plain.reason not in IN_FLIGHT:
        return plain
    return Condition(plain.status, plain.reason, "", None, _time(seen.last_update_time))


@lru_cache(maxsize=256)
def _plain_condition(status: str, reason: str) -> Condition:
    return Condition(status, reason)


def _time(value: datetime | None) -> datetime | None:
    return value if value is not None and value.year in _YEARS else None
