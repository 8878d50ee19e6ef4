"""The receiver's code for Python in docs/webhooks.md."""

import sys
from pathlib import Path

from tests.controlplane.receivers import Request
from tests.documents import blocks
from tests.snippets.verifying import check

MAIN = """
import json
import sys

secret, headers, body = json.loads(sys.stdin.buffer.read())
code = 3
try:
    code = 0 if verify(secret, headers, body.encode()) else 1
except Exception as error:
    print("a request makes the receiver fail:", repr(error), file=sys.stderr)
sys.exit(code)
"""


def test_it_verifies(sent: tuple[str, Request], tmp_path: Path) -> None:
    [code] = blocks("webhooks.md", "python")
    (tmp_path / "verify.py").write_text(code + MAIN)
    check([sys.executable, "verify.py"], tmp_path, sent)
