"""The receiver's code for Go in docs/webhooks.md."""

from pathlib import Path

import pytest

from tests.controlplane.binaries import run
from tests.controlplane.receivers import Request
from tests.documents import blocks
from tests.snippets.verifying import check

MAIN = """
package main

import (
	"encoding/json"
	"os"
)

func main() {
	var given []json.RawMessage
	var secret, body string
	headers := map[string]string{}
	if json.NewDecoder(os.Stdin).Decode(&given) != nil {
		os.Exit(3)
	}
	for i, into := range []any{&secret, &headers, &body} {
		if json.Unmarshal(given[i], into) != nil {
			os.Exit(3)
		}
	}
	if !Verify(secret, headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], []byte(body)) {
		os.Exit(1)
	}
}
"""


@pytest.fixture
def verifier(go: str, tmp_path: Path) -> str:
    [code] = blocks("webhooks.md", "go")
    (tmp_path / "verify.go").write_text(code)
    (tmp_path / "main.go").write_text(MAIN)
    (tmp_path / "go.mod").write_text("module verify\n\ngo 1.22\n")
    run([go, "build", "-trimpath", "-o", "verify", "."], tmp_path)
    return str(tmp_path / "verify")


def test_it_verifies(verifier: str, sent: tuple[str, Request], tmp_path: Path) -> None:
    check([verifier], tmp_path, sent)
