"""A Slack to talk to on loopback: its limits, rates and error words, and a transcript of its channel.

Words and rates are those of https://docs.slack.dev (chat.postMessage, chat.update, rate limits) as
collected in delivery reference §1.3 and §1.4.
"""

from datetime import datetime, timedelta
from typing import Final, Self

from aiohttp import web
from msgspec import Struct

from watcher.core.model import Json
from watcher.ports import Clock
from watcher.testing.slack_channel import Post, refused_content, units

CHANNEL: Final = "C0123456789"
_UPDATE_TEXT: Final = 4_000


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
        broadcast = [reply for post in self.messages for reply in post.replies if reply.broadcast]
        posts = sorted((*self.messages, *broadcast), key=lambda post: float(post.ts))
        return "\n\n".join("\n".join(post.lines()) for post in posts)

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
        if units(body.get("text", "")) > _UPDATE_TEXT:
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
