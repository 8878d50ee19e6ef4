"""Deployments to create, where things live, and what settled means."""

from tests.controlplane.client import Client, Json


def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


def create(admin: Client, namespace: str, manifest: Json) -> str:
    """Create the Deployment and give the path it then has, without waiting for its pods."""
    name = admin.create(deployments(namespace), manifest)["metadata"]["name"]
    return f"{deployments(namespace)}/{name}"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def deployment(name: str, *, replicas: int = 1, image: str = "app:1", **spec: object) -> Json:
    """A Deployment; `image` decides what the kubelet makes of its pods."""
    labels = {"app": name}
    container = {"name": "main", "image": image}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            **spec,
        },
    }


def with_image(image: str) -> Json:
    """The merge patch that rolls a Deployment of ours out to another image."""
    container = {"name": "main", "image": image}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def settled(found: Json) -> bool:
    """Seen by its controller, every replica of the newest template available, no older one left."""
    desired, status = found["spec"]["replicas"], found["status"]
    if status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return False
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return all(status.get(count, 0) == desired for count in counts)


def condition(found: Json, kind: str) -> Json | None:
    """The condition of that type, None when there is none."""
    conditions: list[Json] = found["status"].get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), None)
