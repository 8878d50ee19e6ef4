"""What the documents tell people to paste does what they say."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.controlplane.binaries import go_command, run
from tests.controlplane.receivers import VALIDATOR, Receiver, Request
from tests.events import event, notification
from tests.parts import say
from watcher.clock import SystemClock
from watcher.core.events import Edge
from watcher.sinks.http import Sender
from watcher.sinks.webhook import Webhook, envelope

DOCS = Path(__file__).parents[2] / "docs"
TIMEOUT = 120
PYTHON = """
import json, sys
secret, headers, body = json.load(sys.stdin)
sys.exit(0 if verify(secret, headers, body.encode()) else 1)
"""
NODE = """
import { readFileSync } from "node:fs";
const [secret, headers, body] = JSON.parse(readFileSync(0));
process.exit(verify(secret, headers, Buffer.from(body)) ? 0 : 1);
"""
GO = """
package main

import ("encoding/json"; "os")

func main() {
	var given []json.RawMessage
	var secret, body string
	headers := map[string]string{}
	if json.NewDecoder(os.Stdin).Decode(&given) != nil { os.Exit(2) }
	if json.Unmarshal(given[0], &secret) != nil || json.Unmarshal(given[1], &headers) != nil || json.Unmarshal(given[2], &body) != nil { os.Exit(2) }
	signatures := headers["webhook-signature"]
	if !Verify(secret, headers["webhook-id"], headers["webhook-timestamp"], signatures, []byte(body)) { os.Exit(1) }
}
"""


def blocks(document: str, language: str) -> list[str]:
    """What stands between ```language and ``` in a document."""
    text = (DOCS / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
async def sent() -> tuple[str, Request]:
    """The secret, and a request of the watcher's own, signed with it and with its successor."""
    async with Receiver() as receiver:
        sender = Sender(SystemClock(), allow_http=True)
        keys = [lambda: "whsec_c3VjY2Vzc29y", lambda: receiver.secret]
        sink = Webhook("hook", sender, url=lambda: receiver.url, secrets=keys)
        await sink.send(notification(event(Edge.DEGRADED)))
        [request] = receiver.requests
        return receiver.secret, request


@pytest.mark.parametrize("language", ["python", "go", "js"])
def test_a_receiver_can_verify(
    language: str, sent: tuple[str, Request], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """It takes what the watcher sent, and neither another body nor an old one."""
    [code] = blocks("webhooks.md", language)
    if language == "python":
        (tmp_path / "verify.py").write_text(code + PYTHON)
        command = [sys.executable, "verify.py"]
    elif language == "js":
        if (node := shutil.which("node")) is None:
            pytest.skip("the code for Node needs node on the PATH, which no lock file can bring")
        (tmp_path / "verify.mjs").write_text(code + NODE)
        command = [node, "verify.mjs"]
    else:
        (tmp_path / "verify.go").write_text(code)
        (tmp_path / "main.go").write_text(GO)
        (tmp_path / "go.mod").write_text("module verify\n\ngo 1.22\n")
        go = go_command(lambda line: say(pytestconfig, line))
        run([go, "build", "-trimpath", "-o", "verify", "."], tmp_path)
        command = [str(tmp_path / "verify")]

    def accepted(secret: str, headers: dict[str, str], body: str) -> bool:
        given = json.dumps([secret, headers, body])
        done = subprocess.run(
            command, input=given, text=True, cwd=tmp_path, timeout=TIMEOUT, check=False
        )
        assert done.returncode in (0, 1)
        return done.returncode == 0

    secret, request = sent
    headers, body = dict(request.headers), request.body.decode()
    assert accepted(secret, headers, body)
    assert not accepted(secret, headers, body.replace("checkout", "payments"))
    assert not accepted("whsec_b3RoZXI=", headers, body)
    assert not accepted(secret, {**headers, "webhook-timestamp": "1700000000"}, body)


def test_the_shown_payload_is_what_is_sent() -> None:
    [shown] = map(json.loads, blocks("webhooks.md", "json"))
    VALIDATOR.validate(shown)
    sent = envelope(notification(event(Edge.DEGRADED, was_critical=True)))
    assert shown == json.loads(json.dumps(sent, default=str))


def test_the_slack_app_asks_for_what_is_explained() -> None:
    """Each scope of the manifest is in the table that says why, and no other."""
    app, _ = blocks("slack.md", "yaml")
    scopes = yaml.safe_load(app)["oauth_config"]["scopes"]["bot"]
    table = re.findall(
        r"^\| ((?:`[a-z]+:[a-z]+`(?:, )?)+) \|", (DOCS / "slack.md").read_text(), re.M
    )
    assert scopes == [scope for row in table for scope in re.findall(r"`([^`]+)`", row)]
