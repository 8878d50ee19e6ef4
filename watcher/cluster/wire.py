"""The fields of the API's JSON that we read; msgspec skips all others without building them."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, ValidationError
from msgspec.structs import fields

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Long = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]
Limit = int | Annotated[str, Meta(max_length=12)]


class Metadata(Struct, gc=False, rename="camel"):
    """`metadata`; a deletionTimestamp counts whatever it is."""

    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: Long | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Any = None
    annotations: dict[str, str] | None = None


class RollingUpdate(Struct, gc=False, rename="camel"):
    """`spec.strategy.rollingUpdate`."""

    max_unavailable: Limit | None = None
    max_surge: Limit | None = None


class Strategy(Struct, gc=False, rename="camel"):
    """`spec.strategy`."""

    type: str | None = None
    rolling_update: RollingUpdate | None = None


class Spec(Struct, gc=False, rename="camel"):
    """`spec`."""

    replicas: Count | None = None
    paused: bool | None = None
    strategy: Strategy | None = None
    min_ready_seconds: Count | None = None
    progress_deadline_seconds: Count | None = None


class Condition(Struct, gc=False, rename="camel"):
    """An entry of `status.conditions`."""

    type: str = ""
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    last_transition_time: Time | None = None
    last_update_time: Time | None = None


class Status(Struct, gc=False, rename="camel"):
    """`status`; the API omits what is zero."""

    observed_generation: Long | None = None
    replicas: Count | None = None
    updated_replicas: Count | None = None
    ready_replicas: Count | None = None
    available_replicas: Count | None = None
    conditions: list[Condition] | None = None


class Object(Struct, gc=False, rename="camel"):
    """A Deployment, a Status or whatever else came in its place."""

    kind: str | None = None
    api_version: str | None = None
    metadata: Metadata | None = None
    spec: Spec | None = None
    status: Status | None = None


class Line(Struct, gc=False):
    """One event of a watch."""

    type: str
    object: Object


class PlainLine(Struct):
    """The same when the object does not keep to the types."""

    type: str
    object: Any


class ListMetadata(Struct, rename="camel"):
    """`metadata` of a list."""

    resource_version: str | None = None
    next: str | None = msgspec.field(default=None, name="continue")


class List(Struct, rename="camel"):
    """One page of a list, its items still undecoded."""

    kind: str = ""
    metadata: ListMetadata | None = None
    items: list[Raw] | UnsetType | None = UNSET


_PARTS: Final[dict[tuple[type[Struct], str], type[Struct]]] = {
    (Object, "metadata"): Metadata,
    (Object, "spec"): Spec,
    (Object, "status"): Status,
    (Spec, "strategy"): Strategy,
    (Strategy, "rolling_update"): RollingUpdate,
}
_FORGIVEN: Final = {  # unreadable, these count as absent
    "creation_timestamp",
    "annotations",
    "rolling_update",
    "max_unavailable",
    "max_surge",
}


_S = TypeVar("_S", bound=Struct)


def mend(kind: type[_S], value: object, path: str, complaints: list[str]) -> _S:
    """Build `kind` from plain JSON without the fields that cannot be read, naming those."""
    if not isinstance(value, dict):
        complaints.append(f"{path} is not an object")
        return kind()
    read: dict[str, Any] = {}
    for field in fields(kind):
        if (key := field.encode_name) not in value:
            continue
        item, where = value[key], f"{path}.{key}".removeprefix("it.")
        try:
            read[field.name] = msgspec.convert(item, field.type)
        except (ValidationError, UnicodeError) as error:
            told = complaints if field.name not in _FORGIVEN else []
            if part := _PARTS.get((kind, field.name)):
                read[field.name] = mend(part, item, where, told)
            elif field.name == "conditions" and isinstance(item, list):
                read[field.name] = [mend(Condition, entry, "", []) for entry in item]
            elif field.name == "annotations" and isinstance(item, dict):
                read[field.name] = {k: v for k, v in item.items() if isinstance(v, str)}
            else:
                told.append(f"{where}: {str(error).lower()}")
    return kind(**read)
