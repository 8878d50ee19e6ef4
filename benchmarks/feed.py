"""A process of its own that feeds one client with watch lines as fast as it takes them."""

import json
import socket
import sys
from collections.abc import Iterator

from watcher.clock import SystemClock
from watcher.testing.objects import condition, deployment

_MARK = "0123456789"
_ROUND = 64


def lines(deployments: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Rollouts in flight: each line in two halves, between which the resource version goes."""
    halves, items, now = [], [], SystemClock().wall()
    for number in range(deployments):
        obj = deployment(f"team-{number % 50}", f"app-{number}", 10, at=now)
        obj["metadata"]["resourceVersion"] = _MARK
        obj["status"] |= {"replicas": 12, "updatedReplicas": 5}
        condition(obj, "Progressing", "True", "ReplicaSetUpdated", now)
        items.append({**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}})
        line = json.dumps({"type": "MODIFIED", "object": obj}, separators=(",", ":")) + "\n"
        before, _, after = line.partition(_MARK)
        halves.append((before.encode(), after.encode()))
    page = {"kind": "DeploymentList", "metadata": {"resourceVersion": "1"}, "items": items}
    return halves, json.dumps(page, separators=(",", ":")).encode()


def chunks(halves: list[tuple[bytes, bytes]], events: int) -> Iterator[bytes]:
    """Events in rounds over all Deployments, each with a new version."""
    sent = 0
    while sent < events:
        burst = []
        for _ in range(min(_ROUND, events - sent)):
            before, after = halves[sent % len(halves)]
            sent += 1
            burst.append(b"%b%d%b" % (before, sent + 1, after))
        yield b"".join(burst)


def serve(deployments: int, events: int, raw: bool) -> None:
    """Answer lists and one watch over HTTP, or with `raw` send the bare lines."""
    halves, page = lines(deployments)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            if raw:
                for chunk in chunks(halves, events):
                    client.sendall(chunk)
                return
            while request := client.recv(65536):
                if b"watch=" in request:
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                    for chunk in chunks(halves, events):
                        client.sendall(chunk)
                    client.recv(1)
                    return
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n\r\n"
                client.sendall(head.encode() + page)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["raw"])
