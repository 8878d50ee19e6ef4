"""A Slack to talk to on loopback: its real limits and error words, and a transcript of its channel.

Limits and words are those of https://docs.slack.dev (chat.postMessage, chat.update, Block Kit) as
collected in delivery reference §1.2 to §1.4. What a person would see is worked out from the blocks
alone, mentions and links included, so that a test can say that hostile text has had no effect.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from aiohttp import web
from msgspec import Struct, field

from watcher.core.model import Json
from watcher.ports import Clock

CHANNEL: Final = "C0123456789"
_BLOCKS: Final = 50
_TOTAL: Final = 13_200
_UPDATE_TEXT: Final = 4_000
_POST_TEXT: Final = 40_000
_RICH: Final = frozenset({"section", "list", "quote", "preformatted"})
_CONTROL: Final = re.compile(r"<([^<>]*)>")
_EMOJI: Final = re.compile(r":[a-z0-9_+-]+:")
_AUTO_LINK: Final = re.compile(
    r"https?://\S+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|io|dev)\b", re.I
)


class Fault(Struct):
    """What happens to one request instead of, or before, the usual answer."""

    status: int = 0
    """0 lets the request through after `delay`."""
    body: str = ""
    headers: dict[str, str] = {}
    delay: float = 0.0
    """Seconds on the fake's clock."""
    reset: bool = False
    """The connection is reset without an answer."""
    accepted: bool = False
    """The message is posted all the same: an answer that got lost."""
    path: str = ""
    """Only requests whose path ends like this."""


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
    def mentions(self) -> list[str]:
        """Everyone this would notify."""
        return [m for kind, m in _effects(self.payload) if kind == "mention"]

    @property
    def emoji(self) -> list[str]:
        """Everything that would become a picture."""
        return [m for kind, m in _effects(self.payload) if kind == "emoji"]

    @property
    def links(self) -> list[str]:
        """Everything a reader could click."""
        return [m for kind, m in _effects(self.payload) if kind == "link"]


class FakeSlack:
    """One workspace with one bot, on an ephemeral port; use it as an async context manager.

    `rate` is messages a second and channel with bursts of five, and 50 edits a minute; 0 is no limit.
    """

    def __init__(self, clock: Clock, *, token: str = "xoxb-fake", rate: float = 0.0) -> None:  # noqa: S107
        self.clock = clock
        self.token = token
        self.webhook_path = "/services/T0/B0/fake"
        self.messages: list[Post] = []
        """Of the channel, in order; replies are inside, broadcast ones too."""
        self.requests: list[tuple[str, Json]] = []
        self.faults: list[Fault] = []
        """Each is used up by the first request that it fits."""
        self.channels: dict[str, str] = {CHANNEL: ""}
        """Channel → the error that posting there gives, or empty."""
        self.edit_window: timedelta | None = None
        self.url = ""
        self._rate = rate
        self._buckets: dict[str, tuple[float, datetime]] = {}
        self._last_ts = 0

    @property
    def api_url(self) -> str:
        """Where the Web API is."""
        return f"{self.url}/api/"

    @property
    def webhook_url(self) -> str:
        """The incoming webhook of the channel."""
        return f"{self.url}{self.webhook_path}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/api/{method}", self._api)
        app.router.add_post("/services/{path:.*}", self._webhook)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://127.0.0.1:{1}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def delete(self, ts: str) -> None:
        """Somebody deletes a message."""
        self.messages = [post for post in self.messages if post.ts != ts]

    def find(self, ts: str) -> Post | None:
        """The message with this `ts`, replies included."""
        every = (p for post in self.messages for p in (post, *post.replies))
        return next((post for post in every if post.ts == ts), None)

    def render(self) -> str:
        """The channel as on-call sees it, threads folded out."""
        return "\n\n".join("\n".join(_rendered(post)) for post in self._in_order())

    def _in_order(self) -> Sequence[Post]:
        broadcast = [r for post in self.messages for r in post.replies if r.broadcast]
        return sorted((*self.messages, *broadcast), key=lambda post: float(post.ts))

    async def _api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        body: Json = await request.json()
        if answer := await self._fault(request, body):
            return answer
        error = self._unauthorised(request) or (
            "" if method == "auth.test" else self._not_allowed(method, body)
        )
        if error == "ratelimited":
            return web.json_response(
                {"ok": False, "error": error}, status=429, headers={"Retry-After": "1"}
            )
        if error:
            return web.json_response({"ok": False, "error": error})
        if method == "auth.test":
            return web.json_response({"ok": True, "team": "fake", "user": "deployment-watcher"})
        post = self._edit(body) if method == "chat.update" else self._post(body)
        return web.json_response({"ok": True, "channel": post.channel, "ts": post.ts})

    async def _webhook(self, request: web.Request) -> web.Response:
        body: Json = {"channel": CHANNEL, **await request.json()}
        if answer := await self._fault(request, body):
            return answer
        if request.path != self.webhook_path:
            return web.Response(status=404, text="no_service")
        if refusal := self._not_allowed("webhook", body):
            status = {"ratelimited": 429, "is_archived": 410, "channel_not_found": 404}
            words = {"is_archived": "channel_is_archived", "invalid_blocks": "invalid_payload"}
            headers = {"Retry-After": "1"} if refusal == "ratelimited" else {}
            return web.Response(
                status=status.get(refusal, 400), text=words.get(refusal, refusal), headers=headers
            )
        self._post(body)
        return web.Response(text="ok")

    async def _fault(self, request: web.Request, body: Json) -> web.Response | None:
        self.requests.append((request.path, body))
        fault = next((f for f in self.faults if request.path.endswith(f.path)), None)
        if fault is None:
            return None
        self.faults.remove(fault)
        if fault.accepted:
            self._post(body)
        if fault.delay:
            await self.clock.sleep(fault.delay)
        if fault.reset and request.transport is not None:
            request.transport.abort()
        if fault.status or fault.reset:
            return web.Response(status=fault.status or 500, text=fault.body, headers=fault.headers)
        return None

    def _unauthorised(self, request: web.Request) -> str:
        given = request.headers.get("Authorization", "")
        if not given:
            return "not_authed"
        return "" if given == f"Bearer {self.token}" else "invalid_auth"

    def _not_allowed(self, method: str, body: Json) -> str:
        """Slack's word for why this is refused, or nothing."""
        channel = body.get("channel", "")
        refusal = self.channels.get(channel, "channel_not_found") or refused_content(body)
        if method == "chat.update":
            refusal = refusal or self._not_editable(body)
        elif body.get("thread_ts") and self.find(body["thread_ts"]) is None:
            refusal = refusal or "cannot_reply_to_message"
        return refusal or self._too_fast("edits" if method == "chat.update" else channel)

    def _not_editable(self, body: Json) -> str:
        post = self.find(body.get("ts", ""))
        if post is None:
            return "message_not_found"
        if _units(body.get("text", "")) > _UPDATE_TEXT:
            return "msg_too_long"
        if self.edit_window is not None and self.clock.wall() - post.at > self.edit_window:
            return "edit_window_closed"
        rich = [
            any(b["type"] == "rich_text" for b in p.get("blocks", [])) for p in (post.payload, body)
        ]
        return "block_mismatch" if rich == [True, False] else ""

    def _too_fast(self, bucket: str) -> str:
        if not self._rate:
            return ""
        now, burst = self.clock.now(), 5.0
        rate = 50 / 60 if bucket == "edits" else self._rate
        left, at = self._buckets.get(bucket, (burst, now))
        left = min(burst, left + (now - at).total_seconds() * rate)
        self._buckets[bucket] = (max(0.0, left - 1), now)
        return "" if left >= 1 else "ratelimited"

    def _post(self, body: Json) -> Post:
        at = self.clock.wall()
        self._last_ts = max(self._last_ts + 1, int(at.timestamp() * 1_000_000))
        ts = f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"
        thread = body.get("thread_ts", "")
        broadcast = bool(body.get("reply_broadcast"))
        post = Post(body["channel"], ts, at, body, thread_ts=thread, broadcast=broadcast)
        parent = self.find(thread) if thread else None
        (self.messages if parent is None else parent.replies).append(post)
        return post

    def _edit(self, body: Json) -> Post:
        post = self.find(body["ts"])
        if post is None:
            raise LookupError(body["ts"])
        post.edits.append(post.payload)
        post.payload = body
        return post


def refused_content(payload: Json) -> str:
    """Slack's word for what is wrong with a message's content, or nothing."""
    text, blocks = payload.get("text", ""), payload.get("blocks", [])
    if not text and not blocks:
        return "no_text"
    if _units(text) > _POST_TEXT:
        return "msg_too_long"
    if len(blocks) > _BLOCKS or not all(_well_formed(block) for block in blocks):
        return "invalid_blocks"
    if sum(_units(text) for block in blocks for _, text in _texts(block)) > _TOTAL:
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
    return limit >= 0 and all(1 <= _units(text) <= limit for _, text in _texts(block))


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


def _effects(payload: Json) -> Iterator[tuple[str, str]]:
    """What Slack would make of a message beyond plain text: mentions and links."""
    top = {
        "type": "mrkdwn",
        "text": payload.get("text", ""),
        "verbatim": payload.get("parse") == "none",
    }
    for holder, text in _texts([top, *payload.get("blocks", [])]):
        if holder["type"] == "mrkdwn":
            yield from _mrkdwn_effects(text, bool(holder.get("verbatim")))
        if holder["type"] == "plain_text" and holder.get("emoji", True):
            yield from (("emoji", name) for name in _EMOJI.findall(text))
    for element in _rich_elements(payload.get("blocks", [])):
        if element["type"] in ("user", "usergroup", "broadcast", "channel"):
            yield "mention", str(element)
        elif element["type"] == "link":
            yield "link", element["url"]


def _mrkdwn_effects(text: str, verbatim: bool) -> Iterator[tuple[str, str]]:
    for control in _CONTROL.findall(text):
        if not control.startswith("!date^"):
            yield ("mention" if control[:1] in ("!", "@", "#") else "link"), control
    if not verbatim:
        yield from (("link", link) for link in _AUTO_LINK.findall(_CONTROL.sub("", text)))


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


def _rendered(post: Post) -> Iterator[str]:
    at = post.at.astimezone(UTC)
    thread = "  ↪ replied to a thread" if post.broadcast else ""
    yield f"[{at:%H:%M:%S}] deployment-watcher{'  (edited)' if post.edits else ''}{thread}"
    yield from (f"  {line}" for line in post.shown.split("\n"))
    for reply in post.replies:
        first, *rest = reply.shown.split("\n")
        yield f"    └ {first}"
        yield from (f"      {line}" for line in rest)


def _units(text: str) -> int:
    """UTF-16 units, the strictest reading of "characters"."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
