"""What Slack makes of a message: whether it takes it, what a reader sees, what it sets off.

Limits and words are those of https://docs.slack.dev (chat.postMessage, Block Kit) as collected in
delivery reference §1.2. Worked out from the blocks alone, so that a test can say that hostile text
is shown and has no effect.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct, field

from watcher.core.model import Json

_BLOCKS: Final = 50
_TOTAL: Final = 13_200
_POST_TEXT: Final = 40_000
_RICH: Final = frozenset({"section", "list", "quote", "preformatted"})
_CONTROL: Final = re.compile(r"<([^<>]*)>")
_EMOJI: Final = re.compile(r":[a-z0-9_+-]+:")
_AUTO_LINK: Final = re.compile(
    r"https?://\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|io|dev)\b", re.I
)


class Post(Struct):
    """One message as the channel keeps it."""

    channel: str
    ts: str
    at: datetime
    payload: Json
    thread_ts: str = ""
    broadcast: bool = False
    edits: list[Json] = field(default_factory=list)
    """Earlier payloads, oldest first."""
    replies: list["Post"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The fallback text, as notifications and screen readers give it."""
        return _decoded(self.payload.get("text", ""))

    @property
    def blocks(self) -> list[Json]:
        """The blocks, as sent."""
        return list(self.payload.get("blocks", []))

    @property
    def shown(self) -> str:
        """What the channel displays: blocks if there are any, else the text."""
        return "\n".join(line for block in self.blocks for line in _lines(block)) or self.text

    @property
    def effects(self) -> list[str]:
        """What it does beyond being read: whom it mentions, what becomes a link or a picture."""
        return list(_effects(self.payload))

    def lines(self) -> Iterator[str]:
        """The message and its thread as on-call sees them."""
        marks = (
            f"{'  (edited)' if self.edits else ''}{'  (from a thread)' if self.broadcast else ''}"
        )
        yield f"[{self.at.astimezone(UTC):%H:%M:%S}] deployment-watcher{marks}"
        yield from (f"  {line}" for line in self.shown.split("\n"))
        for reply in self.replies:
            first, *rest = reply.shown.split("\n")
            yield f"    └ {first}"
            yield from (f"      {line}" for line in rest)


def refused_content(payload: Json) -> str:
    """Slack's word for what is wrong with a message's content, or nothing."""
    text, blocks = payload.get("text", ""), payload.get("blocks", [])
    if not text and not blocks:
        return "no_text"
    if units(text) > _POST_TEXT:
        return "msg_too_long"
    if len(blocks) > _BLOCKS or not all(_well_formed(block) for block in blocks):
        return "invalid_blocks"
    if sum(units(text) for block in blocks for _, text in _texts(block)) > _TOTAL:
        return "msg_blocks_too_long"
    marks = payload.get("metadata")
    return "invalid_metadata_format" if marks is not None and not marks.get("event_type") else ""


def _well_formed(block: Json) -> bool:
    kind = block.get("type", "")
    if kind == "rich_text":
        return all(
            e["type"].removeprefix("rich_text_") in _RICH for e in block["elements"]
        ) and all(text for _, text in _texts(block))
    if len(block.get("elements", [])) > 10 or len(block.get("fields", [])) > 10:
        return False
    limit = {"header": 150, "section": 3000, "context": 3000, "divider": 0}.get(kind, -1)
    return limit >= 0 and all(1 <= units(text) <= limit for _, text in _texts(block))


def _texts(node: Any) -> Iterator[tuple[Json, str]]:  # noqa: ANN401 - any part of decoded JSON
    """Every text in a block, with the object that holds it."""
    if isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        if isinstance(node.get("text"), str):
            yield node, node["text"]
        for key in ("text", "fields", "elements"):
            yield from _texts(node.get(key))


def _effects(payload: Json) -> Iterator[str]:
    top = {
        "type": "mrkdwn",
        "text": payload.get("text", ""),
        "verbatim": payload.get("parse") == "none",
    }
    for holder, text in _texts([top, *payload.get("blocks", [])]):
        if holder["type"] == "mrkdwn":
            yield from _mrkdwn_effects(text, bool(holder.get("verbatim")))
        if holder["type"] == "plain_text" and holder.get("emoji", True):
            yield from _EMOJI.findall(text)
    for element in _rich_elements(payload.get("blocks", [])):
        if element["type"] in ("user", "usergroup", "broadcast", "channel", "link", "emoji"):
            yield str(element)


def _mrkdwn_effects(text: str, verbatim: bool) -> Iterator[str]:
    yield from (control for control in _CONTROL.findall(text) if not control.startswith("!date^"))
    if not verbatim:
        yield from _AUTO_LINK.findall(_CONTROL.sub("", text))


def _rich_elements(blocks: list[Json]) -> Iterator[Json]:
    for block in blocks:
        yield from (e for e in _walk(block) if block["type"] == "rich_text")


def _walk(node: Json) -> Iterator[Json]:
    for element in node.get("elements", []):
        yield element
        yield from _walk(element)


def _decoded(text: str) -> str:
    """mrkdwn as it is displayed: dates by their fallback, escapes resolved."""
    text = _CONTROL.sub(lambda match: match[1].rpartition("|")[2], text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _lines(block: Json) -> Iterator[str]:
    if block["type"] != "rich_text":
        for holder, text in _texts(block):
            yield _decoded(text).replace("*", "") if holder["type"] == "mrkdwn" else text
        return
    marks = defaultdict(str, rich_text_quote="│ ", rich_text_preformatted="$ ")
    for element in block["elements"]:
        if element["type"] == "rich_text_list":
            yield from ("• " + "".join(t for _, t in _texts(item)) for item in element["elements"])
            continue
        said = "".join(text for _, text in _texts(element)).rstrip("\n")
        yield from (marks[element["type"]] + line for line in said.split("\n"))


def units(text: str) -> int:
    """UTF-16 units, the strictest reading of "characters"."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
