"""Answers of the API → events and pages; no line of a watch makes this raise."""

from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from watcher.cluster.snapshot import UNDECODABLE, Object, from_plain, identity_fault, snapshot
from watcher.core.model import DeploymentSnapshot
from watcher.errors import Protocol
from watcher.ports import Applied, Deleted


class Line(Struct, gc=False):
    """One event of a watch."""

    type: str
    object: Object


class _PlainLine(Struct):
    type: str
    object: Any


class _ListMetadata(Struct, rename="camel"):
    resource_version: str | None = None
    next: str | None = msgspec.field(default=None, name="continue")


class _List(Struct):
    kind: str = ""
    metadata: _ListMetadata | None = None
    items: list[Raw] | UnsetType | None = UNSET


class Page(Struct, frozen=True):
    """One page of a list; `next` is the continue token, empty on the last page."""

    version: str
    next: str
    snapshots: tuple[DeploymentSnapshot, ...]


class Bookmark(Struct, frozen=True, gc=False):
    """The stream is up to date as of this resource version."""

    version: str


class Details(Struct, frozen=True, rename="camel"):
    """`details` of a Status."""

    retry_after_seconds: Annotated[int, Meta(ge=0, le=10**6)] | None = None


class Status(Struct, frozen=True):
    """The API's own account of a failure."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: Details = Details()


class Unreadable(Struct, frozen=True, gc=False):
    """A line that is no event of a Deployment; `reason` quotes nothing of it."""

    reason: str


Seen = Applied | Deleted | Bookmark | Status | Unreadable

_KINDS: Final = ("Deployment", None, "")
_VERSIONS: Final = ("apps/v1", None, "")
_LINES: Final = msgspec.json.Decoder(Line)
_OBJECTS: Final = msgspec.json.Decoder(Object)


def decode_line(line: bytes, scope: str, cluster: str) -> Seen:
    """Read one line of a watch stream."""
    try:
        typed = _LINES.decode(line)
        if typed.type != "ERROR":
            return _event(typed.type, typed.object, "", scope, cluster)
    except UNDECODABLE:
        pass
    try:
        plain = msgspec.json.decode(line, type=_PlainLine)
    except UNDECODABLE as error:
        return Unreadable(f"no watch event: {type(error).__name__}")
    if plain.type == "ERROR":
        return decode_status(plain.object)
    return _event(plain.type, *from_plain(plain.object), scope, cluster)


def decode_page(body: bytes, cluster: str) -> Page:
    """Read one page of a list; raises Protocol unless it is a whole and a versioned one."""
    try:
        page = msgspec.json.decode(body, type=_List)
    except UNDECODABLE as error:
        raise Protocol(f"the list is not readable: {type(error).__name__}") from None
    if page.kind != "DeploymentList" or page.items is UNSET:
        raise Protocol("the answer is no DeploymentList")
    if page.metadata is None or not page.metadata.resource_version:
        raise Protocol("the list has no metadata.resourceVersion")
    snapshots = tuple(decode_object(item, cluster) for item in page.items or ())
    return Page(page.metadata.resource_version, page.metadata.next or "", snapshots)


def decode_status(value: object) -> Status:
    """Read a Status object of the API; anything else is one that says nothing."""
    try:
        return msgspec.convert(value, Status)
    except UNDECODABLE:
        return Status()


def snapshot_from(obj: object, cluster: str) -> DeploymentSnapshot:
    """Read a Deployment from plain JSON; anything else becomes a snapshot that is `malformed`."""
    seen, malformed = from_plain(obj)
    return snapshot(seen, cluster, malformed)


def decode_object(item: Raw | bytes, cluster: str) -> DeploymentSnapshot:
    """Read one Deployment; anything else becomes a snapshot that is `malformed`."""
    try:
        seen = _OBJECTS.decode(item)
        return snapshot(seen, cluster, identity_fault(seen))
    except UNDECODABLE:
        plain = None
        with suppress(*UNDECODABLE):
            plain = msgspec.json.decode(item)
        return snapshot_from(plain, cluster)


def _event(kind: str, seen: Object, malformed: str, scope: str, cluster: str) -> Seen:
    if seen.kind not in _KINDS or seen.api_version not in _VERSIONS:
        return Unreadable("no Deployment of apps/v1")
    if kind == "BOOKMARK":
        return Bookmark((seen.metadata and seen.metadata.resource_version) or "")
    if not seen.metadata or not seen.metadata.name:
        return Unreadable("a Deployment without a name")
    if kind == "MODIFIED" or kind == "ADDED":
        return Applied(scope, snapshot(seen, cluster, malformed))
    if kind == "DELETED":
        return Deleted(scope, snapshot(seen, cluster, malformed))
    return Unreadable("unknown event type")
