"""The receiver's code for Node in docs/webhooks.md."""

from pathlib import Path

from tests.controlplane.receivers import Request
from tests.documents import blocks
from tests.snippets.verifying import check

MAIN = """
import { readFileSync } from "node:fs";

const [secret, headers, body] = JSON.parse(readFileSync(0));
let code = 3;
try {
  code = verify(secret, headers, Buffer.from(body)) ? 0 : 1;
} catch (error) {
  console.error("a request makes the receiver fail:", error);
}
process.exit(code);
"""


def test_it_verifies(node: str, sent: tuple[str, Request], tmp_path: Path) -> None:
    [code] = blocks("webhooks.md", "js")
    (tmp_path / "verify.mjs").write_text(code + MAIN)
    check([node, "verify.mjs"], tmp_path, sent)
