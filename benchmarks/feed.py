"""A process of its own that feeds one client with watch lines as fast as it takes them."""

import json
import socket
import sys
import time
from collections.abc import Iterator

from watcher.clock import SystemClock
from watcher.testing.objects import condition, deployment

_MARK = "0123456789"
_ROUND = 64
_UPDATED = 5
_SETTLED = 1.0
"""Seconds between the stream's opening and its first event: what a start costs is not measured."""


def lines(deployments: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Rollouts in flight: each line in two halves, between which the resource version goes."""
    halves, items, now = [], [], SystemClock().wall()
    for number in range(deployments):
        obj = deployment(f"team-{number % 50}", f"app-{number}", 10, at=now)
        obj["metadata"]["resourceVersion"] = _MARK
        obj["status"] |= {"replicas": 12, "updatedReplicas": _UPDATED}
        condition(obj, "Progressing", "True", "ReplicaSetUpdated", now)
        items.append({**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}})
        line = json.dumps({"type": "MODIFIED", "object": obj}, separators=(",", ":")) + "\n"
        before, _, after = line.partition(_MARK)
        halves.append((before.encode(), after.encode()))
    page = {"kind": "DeploymentList", "metadata": {"resourceVersion": "1"}, "items": items}
    return halves, json.dumps(page, separators=(",", ":")).encode()


def chunks(halves: list[tuple[bytes, bytes]], events: int, moving: bool = False) -> Iterator[bytes]:
    """Events in rounds over all Deployments, each with a new version.

    With `moving` every round but the first has another number of updated pods than the one before.
    """
    before = b'"updatedReplicas":%d' % _UPDATED
    after = b'"updatedReplicas":%d' % (_UPDATED + 1)
    moved = [(head, tail.replace(before, after)) for head, tail in halves] if moving else halves
    sent = 0
    while sent < events:
        if sent % len(halves) == 0 and sent:
            halves, moved = moved, halves
        burst = []
        for _ in range(min(_ROUND, events - sent)):
            head, tail = halves[sent % len(halves)]
            sent += 1
            burst.append(b"%b%d%b" % (head, sent + 1, tail))
        yield b"".join(burst)


def serve(deployments: int, events: int, raw: bool, moving: bool) -> None:
    """Answer lists and one watch over HTTP, or with `raw` send the bare lines."""
    halves, page = lines(deployments)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            if raw:
                for chunk in chunks(halves, events, moving):
                    client.sendall(chunk)
                return
            while request := client.recv(65536):
                if b"watch=" in request:
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                    time.sleep(_SETTLED)
                    for chunk in chunks(halves, events, moving):
                        client.sendall(chunk)
                    client.recv(1)
                    return
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(page)}\r\n\r\n"
                client.sendall(head.encode() + page)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), "raw" in sys.argv, "moving" in sys.argv)
