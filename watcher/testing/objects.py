"""Deployments as a real API server writes them, managed fields and all, about 2.8 KB each."""

import uuid
from datetime import UTC, datetime
from typing import Any, Final

from watcher.core.model import Json

EARLIER: Final = datetime(2026, 1, 1, tzinfo=UTC)


def stamp(at: datetime) -> str:
    """Write a time as the API does."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def deployment(
    namespace: str,
    name: str,
    desired: int = 3,
    ready: int | None = None,
    *,
    at: datetime = EARLIER,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,  # noqa: ANN401 - any field of a Deployment's spec
) -> Json:
    """Build one whose rollout is finished; all pods serve unless `ready` says less."""
    labels = {"app.kubernetes.io/name": name, **(labels or {})}
    made: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": stamp(at),
            "labels": labels,
            "annotations": {"deployment.kubernetes.io/revision": "1", **(annotations or {})},
            "managedFields": [
                _managed("helm", _FIELDS_OF_SPEC, at),
                _managed("kube-controller-manager", _FIELDS_OF_STATUS, at, "status"),
            ],
        },
        "spec": {
            "replicas": desired,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _POD},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **spec,
        },
        "status": {"observedGeneration": 1, "replicas": desired, "updatedReplicas": desired},
    }
    condition(made, "Progressing", "True", "NewReplicaSetAvailable", at)
    set_ready(made, desired if ready is None else ready, at)
    return made


def set_ready(obj: Json, ready: int, at: datetime) -> None:
    """Let so many pods serve, with the Available condition the controller would write."""
    desired = obj["spec"]["replicas"]
    obj["status"] |= {
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(desired - ready, 0),
    }
    if ready >= desired - desired // 4:
        condition(obj, "Available", "True", "MinimumReplicasAvailable", at)
    else:
        condition(obj, "Available", "False", "MinimumReplicasUnavailable", at)


def condition(
    obj: Json, kind: str, status: str, reason: str, at: datetime, message: str = ""
) -> None:
    """Write a condition; its lastTransitionTime moves only when the status does."""
    entries = obj["status"].setdefault("conditions", [])
    old: Json = next((entry for entry in entries if entry["type"] == kind), {})
    entries[:] = [entry for entry in entries if entry["type"] != kind]
    entries.append(
        {
            "type": kind,
            "status": status,
            "lastUpdateTime": stamp(at),
            "lastTransitionTime": old["lastTransitionTime"]
            if old.get("status") == status
            else stamp(at),
            "reason": reason,
            "message": message or f"Deployment {obj['metadata']['name']}: {reason}.",
        }
    )


def _managed(manager: str, owned: Json, at: datetime, subresource: str = "") -> Json:
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "apps/v1",
        "time": stamp(at),
        "fieldsType": "FieldsV1",
        "fieldsV1": owned,
        **({"subresource": subresource} if subresource else {}),
    }


def _owned(*names: str) -> Json:
    return {f"f:{name}": {} for name in names}


_POD: Final[Json] = {
    "containers": [
        {
            "name": "main",
            "image": "registry.example/shop/app:1.14.2",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {
                "limits": {"cpu": "500m", "memory": "256Mi"},
                "requests": {"cpu": "50m", "memory": "128Mi"},
            },
            "readinessProbe": {
                "httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        }
    ],
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "app",
    "securityContext": {"runAsNonRoot": True, "fsGroup": 65532},
    "schedulerName": "default-scheduler",
}
_FIELDS_OF_SPEC: Final[Json] = {
    "f:metadata": {"f:labels": {".": {}, **_owned("app.kubernetes.io/name")}},
    "f:spec": {
        **_owned("progressDeadlineSeconds", "replicas", "revisionHistoryLimit", "selector"),
        "f:strategy": {"f:rollingUpdate": {".": {}, **_owned("maxSurge", "maxUnavailable")}},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"main"}': {".": {}, **_owned("image", "name", "readinessProbe")}
                },
                **_owned("dnsPolicy", "restartPolicy"),
            }
        },
    },
}
_FIELDS_OF_STATUS: Final[Json] = {
    "f:metadata": {"f:annotations": {".": {}, **_owned("deployment.kubernetes.io/revision")}},
    "f:status": {
        **_owned("availableReplicas", "observedGeneration", "readyReplicas", "replicas"),
        "f:conditions": {
            ".": {},
            'k:{"type":"Available"}': {
                ".": {},
                **_owned("lastTransitionTime", "message", "status"),
            },
            'k:{"type":"Progressing"}': {".": {}, **_owned("lastUpdateTime", "reason", "type")},
        },
        **_owned("unavailableReplicas", "updatedReplicas"),
    },
}
