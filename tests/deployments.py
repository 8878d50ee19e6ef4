"""Deployments as plain JSON, in one line: what `kubectl get -o json` would show, and no more."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]

ZERO: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Second 0 of every test: all times below are seconds from here."""
CREATED: Final = -86_400
TURNED: Final = -3_600
DROP: Final = object()


def stamp(seconds: float) -> str:
    """A time as the API writes it."""
    return (ZERO + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def web(
    available: int = 3,
    desired: int = 3,
    *,
    updated: int | None = None,
    total: int | None = None,
    ready: int | None = None,
    unavailable: int | str | None = 1,
    surge: int | str | None = None,
    recreate: bool = False,
    reason: str = "NewReplicaSetAvailable",
    progressing: str = "True",
    moved: float = TURNED,
    capacity: str = "",
    turned: float | None = TURNED,
    failure: str | None = None,
    failed: float = TURNED,
    generation: int = 1,
    observed: int | None = None,
    revision: int = 1,
    min_ready: int = 0,
    deadline: int = 600,
    paused: bool = False,
    deleting: bool = False,
    name: str = "web",
    uid: str = "",
    **annotations: str,
) -> Json:
    """One whose rollout is finished, unless told otherwise; `unavailable` is maxUnavailable.

    `capacity` is the Available condition's status, by default what the controller would write;
    `turned`, `moved`, `failed` are when Available, Progressing and ReplicaFailure last changed.
    """
    floor = desired if recreate else desired - (unavailable if isinstance(unavailable, int) else 0)
    conditions = [
        _condition("Available", capacity or str(available >= floor), "Minimum", turned),
        _condition("Progressing", progressing, reason, moved),
    ]
    if failure is not None:
        conditions.append(_condition("ReplicaFailure", "True", "FailedCreate", failed, failure))
    updated = desired if updated is None else updated
    limits = {"maxUnavailable": unavailable, "maxSurge": surge}
    rolling = {key: value for key, value in limits.items() if value is not None}
    return {
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid or f"uid-of-{name}",
            "generation": generation,
            "creationTimestamp": stamp(CREATED),
            "annotations": {"deployment.kubernetes.io/revision": str(revision)}
            | {f"deployment-watcher.dev/{k.replace('_', '-')}": v for k, v in annotations.items()},
        }
        | ({"deletionTimestamp": stamp(0)} if deleting else {}),
        "spec": {
            "replicas": desired,
            "paused": paused,
            "minReadySeconds": min_ready,
            "progressDeadlineSeconds": deadline,
            "strategy": {"type": "Recreate"}
            if recreate
            else {"type": "RollingUpdate", "rollingUpdate": rolling},
        },
        "status": {
            "observedGeneration": generation if observed is None else observed,
            "replicas": updated if total is None else total,
            "updatedReplicas": updated,
            "readyReplicas": available if ready is None else ready,
            "availableReplicas": available,
            "conditions": conditions,
        },
    }


def _condition(
    kind: str, status: str, reason: str, at: float | None, message: str = "…"
) -> dict[str, str]:
    times = {"lastTransitionTime": stamp(at), "lastUpdateTime": stamp(at)} if at is not None else {}
    return {"type": kind, "status": status, "reason": reason, "message": message, **times}


def having(obj: Json, **changes: object) -> Json:
    """The object with fields set by path, `spec__replicas=None`; DROP takes one away."""
    for path, value in changes.items():
        *way, last = path.split("__")
        place = obj
        for key in way:
            place = place.setdefault(key, {})
        if value is DROP:
            place.pop(last, None)
        else:
            place[last] = value
    return obj
