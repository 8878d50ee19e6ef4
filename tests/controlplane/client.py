"""A synchronous client of the API server for tests: JSON in, JSON out, on paths of the REST API."""

import collections
import http.client
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]

REQUEST_TIMEOUT = 30
POLL_SECONDS = 0.05


class ApiError(Exception):
    """The API server refused; `reason` is Kubernetes' own word, such as NotFound or Conflict."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class Client:
    """One user of one API server. Threads may share it."""

    def __init__(self, port: int, ca: Path, token: str) -> None:
        self.port = port
        self._ca = ca
        self._token = token
        self._idle: collections.deque[http.client.HTTPSConnection] = collections.deque()

    def get(self, path: str) -> Json:
        return self._json("GET", path)

    def list(self, path: str) -> list[Json]:
        items: list[Json] = self.get(path)["items"]
        return items

    def create(self, path: str, body: Json) -> Json:
        return self._json("POST", path, body)

    def patch(self, path: str, body: Json) -> Json:
        """A merge patch: objects are merged, lists replaced, None removes."""
        return self._json("PATCH", path, body, "application/merge-patch+json")

    def patch_status(self, path: str, status: Json) -> Json:
        return self.patch(f"{path}/status", {"status": status})

    def delete(self, path: str, propagation: str = "Background") -> Json:
        return self._json("DELETE", path, {"propagationPolicy": propagation})

    def apply(self, *manifests: Json) -> None:
        """Server-side apply, each object at the place that discovery gives for its kind."""
        for manifest in manifests:
            path = f"{self._place(manifest)}?fieldManager=tests&force=true"
            self._json("PATCH", path, manifest, "application/apply-patch+yaml")

    def wait_for(self, path: str, want: Callable[[Json], bool], within: float = 10) -> Json:
        """Poll until `want` holds; the failure shows what was there instead."""
        deadline = time.monotonic() + within
        while not want(found := self.get(path)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} after {within} s: {json.dumps(found)[:4000]}")
            time.sleep(POLL_SECONDS)
        return found

    def wait_gone(self, path: str, within: float = 10) -> None:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            try:
                self.get(path)
            except ApiError as error:
                if error.status == http.HTTPStatus.NOT_FOUND:
                    return
                raise
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"{path} is still there after {within} s")

    def raw(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else self._connect()
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                if not kept:
                    raise
                continue  # the server had closed a connection we kept; a new one decides
            self._idle.append(connection)
            if response.status >= http.HTTPStatus.BAD_REQUEST:
                raise _refusal(response.status, answer)
            return answer

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _json(
        self, method: str, path: str, body: Json | None = None, kind: str = "application/json"
    ) -> Json:
        sent = None if body is None else json.dumps(body).encode()
        answer: Json = json.loads(self.raw(method, path, sent, kind))
        return answer

    def _connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._ca))
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=REQUEST_TIMEOUT, context=context
        )

    def _place(self, manifest: Json) -> str:
        version, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        resource = next(
            each
            for each in self.get(base)["resources"]
            if each["kind"] == kind and "/" not in each["name"]
        )
        if resource["namespaced"]:
            base += f"/namespaces/{metadata['namespace']}"
        return f"{base}/{resource['name']}/{metadata['name']}"


def _refusal(status: int, answer: bytes) -> ApiError:
    try:
        told = json.loads(answer)
    except ValueError:  # /readyz and a server that is starting answer in plain text
        return ApiError(status, http.HTTPStatus(status).phrase, answer.decode(errors="replace"))
    return ApiError(status, told.get("reason", ""), told.get("message", ""))
