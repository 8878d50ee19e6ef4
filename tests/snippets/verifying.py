"""What every receiver's code must take and refuse."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.controlplane.receivers import Request

TIMEOUT = 120
OTHER = "whsec_" + "b3RoZXI=" * 4


def check(command: Sequence[str], folder: Path, sent: tuple[str, Request]) -> None:
    """It takes what the watcher sent, and no other body, time, secret, or less than all headers.

    The command gets [secret, headers, body] as JSON and ends with 0 or 1.
    """

    def accepted(secret: str, headers: dict[str, str], body: str) -> bool:
        given = json.dumps([secret, headers, body])
        done = subprocess.run(
            command, input=given, text=True, cwd=folder, timeout=TIMEOUT, check=False
        )
        assert done.returncode in (0, 1)
        return done.returncode == 0

    secret, request = sent
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = request.body.decode()
    assert accepted(secret, headers, body)
    assert not accepted(secret, headers, body.replace("checkout", "payments"))
    assert not accepted(OTHER, headers, body)
    for name, wrong in (
        ("webhook-timestamp", "1700000000"),
        ("webhook-timestamp", "now"),
        ("webhook-id", "another"),
        ("webhook-signature", "v1,é v1"),
    ):
        assert not accepted(secret, {**headers, name: wrong}, body), name
        without = {key: value for key, value in headers.items() if key != name}
        assert not accepted(secret, without, body), name
