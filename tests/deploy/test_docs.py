"""What the documents show is what there is."""

import json
import re

import yaml

from tests.controlplane.receivers import VALIDATOR
from tests.documents import DOCS, blocks
from tests.events import event, notification
from watcher.core.events import Edge
from watcher.sinks.webhook import envelope


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
