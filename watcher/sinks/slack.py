"""Slack by bot token or by incoming webhook: what is sent, and when it counts as delivered."""

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from watcher.core.delivery import Part
from watcher.core.message import Message
from watcher.core.model import Json
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks import slack_blocks
from watcher.sinks.answers import check, unreadable
from watcher.sinks.http import BODY_CAP, Secret, Sender, read_secret
from watcher.sinks.slack_answers import meaning, refused
from watcher.sinks.slack_blocks import LIST_LINES, Unsent

_PAGES: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "pages.deployment-watcher.dev")
_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_PAGE: Final = 100
_MOST_PAGES: Final = 20
"""A channel in which so much was written since is not read to its end: better told twice."""
_PAGE_CAP: Final = 4_194_304
_CLOCKS_DIFFER: Final = timedelta(minutes=1)
_CONTINUED: Final = "continues an earlier message, which can be edited no more"
_BEARABLE: Final = Traits("", chat=True, concurrency=1, rate=1.0, max_age=timedelta(hours=24))


@dataclass(eq=False)
class SlackBot:
    """One message per incident, edited as it changes, its history in the thread.

    Needs `chat:write`; with `channels:history` or `groups:history` an answer that was lost makes no
    double. Receipt: channel id, `ts`, and whether somebody has been called. `mention` are those to
    call once an incident.
    """

    name: str
    sender: Sender
    token: Secret
    channel: str
    api_url: str
    mention: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.traits = replace(_BEARABLE, name=self.name, threads=True)
        self._unsent = Unsent()

    async def send(self, notification: Notification) -> Json | None:
        """Deliver one part; Outcome.REPOST when the message it belongs to is gone."""
        part, thread, message = notification.part, notification.thread or {}, notification.message
        there = await self._already_there(notification)
        mention = _to_call(notification, self.mention)
        called = {"called": True} if mention or thread.get("called") else {}
        if part is Part.REPLY:
            thread = _thread(notification)
            await self._reply(notification, thread, mention, len(there))
            return {**thread, **called} if mention else None
        message = slack_blocks.summary(message)
        again = thread and thread.get("continued", part is Part.POST)
        if continued := {"continued": True} if again else {}:
            message = replace(message, notes=(*message.notes, _CONTINUED))
        content = _content(notification, message, mention=mention)
        if part is Part.EDIT:
            await self._call("chat.update", {**_place(_thread(notification)), **content})
            return None
        post = {"channel": self.channel, "client_msg_id": notification.delivery_id}
        posted = there[0] if there else await self._call("chat.postMessage", {**post, **content})
        return {**posted, **called, **continued}

    async def _reply(
        self, notification: Notification, thread: Json, mention: Sequence[str], arrived: int
    ) -> None:
        delivery = notification.delivery_id
        pages = slack_blocks.pages(notification.message, LIST_LINES)
        for number, page in self._unsent.pages(delivery, pages, arrived):
            page_id = str(uuid.uuid5(_PAGES, f"{delivery}/{number}")) if number else delivery
            whom = () if number else mention
            body = {
                "channel": thread["channel"],
                "thread_ts": thread["ts"],
                "reply_broadcast": page.broadcast,
                "client_msg_id": page_id,
                **_content(notification, page, brief=True, mention=whom),
            }
            await self._call("chat.postMessage", body)

    async def _already_there(self, notification: Notification) -> list[Json]:
        """What an earlier attempt of unknown outcome has posted, if we may look (§1.5)."""
        since, part = notification.maybe_since, notification.part
        if since is None or part is Part.EDIT:
            return []
        oldest = str((since - _CLOCKS_DIFFER).timestamp())
        asked = {"channel": self.channel, "oldest": oldest, "limit": str(_PAGE)}
        asked["include_all_metadata"], method = "true", "conversations.history"
        if part is Part.REPLY:
            thread = _thread(notification)
            method = "conversations.replies"
            asked |= _place(thread)
        try:
            found = [one async for one in self._pages(method, asked)]
        except SinkError as error:
            if error.outcome is Outcome.PARK:  # without that right a double is possible
                return []
            raise
        return [
            {"channel": page.channel or asked["channel"], "ts": message.ts}
            for page in found
            for message in page.messages
            if message.metadata.event_payload.get("delivery_id") == notification.delivery_id
        ]

    async def _pages(self, method: str, asked: Mapping[str, str]) -> AsyncIterator["_Reply"]:
        """What Slack shows, the newest first."""
        cursor: Mapping[str, str] = {}
        for _ in range(_MOST_PAGES):
            form = urlencode({**asked, **cursor}).encode()
            page = await self._ask(method, form, _FORM, cap=_PAGE_CAP)
            yield page
            if not (following := page.response_metadata.next_cursor):
                return
            cursor = {"cursor": following}

    async def _call(self, method: str, body: Json) -> Json:
        """Only `ok` with a `ts` is success: anything else may come from a proxy, or be half done."""
        reply = await self._ask(method, msgspec.json.encode(body), _JSON)
        if not (reply.channel and reply.ts):
            raise SinkError("bad_answer", Outcome.RETRY, ambiguous=True)
        return {"channel": reply.channel, "ts": reply.ts}

    async def _ask(
        self, method: str, body: bytes, kind: Mapping[str, str], cap: int = BODY_CAP
    ) -> "_Reply":
        token = read_secret(self.token)
        headers = {"Authorization": f"Bearer {token}", **kind}
        url = f"{self.api_url.rstrip('/')}/{method}"
        answer = await self.sender.post(url, body, headers, cap=cap)
        check(answer, self.sender.clock.wall(), [token])
        reply = _Reply()
        with suppress(msgspec.DecodeError):
            reply = msgspec.json.decode(answer.body, type=_Reply)
        if reply.ok:
            return reply
        raise refused(reply.error) if reply.error else unreadable(answer, token)


@dataclass(eq=False)
class SlackWebhook:
    """Every piece of news is a message of its own, as nothing can be edited; the URL is a secret."""

    name: str
    sender: Sender
    url: Secret
    mention: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.traits = replace(_BEARABLE, name=self.name)
        self._unsent = Unsent()

    async def send(self, notification: Notification) -> Json | None:
        """Post, a long list on several pages. The receipt only says whether somebody was called."""
        pages = slack_blocks.pages(slack_blocks.compact(notification.message))
        mention = _to_call(notification, self.mention)
        for number, page in self._unsent.pages(notification.delivery_id, pages):
            whom = () if number else mention
            content = slack_blocks.render(page, brief=number > 0, mention=whom)
            await self._post(slack_blocks.plain(page, whom) if notification.plain else content)
        return {"called": True} if mention else None

    async def _post(self, content: Json) -> None:
        url = read_secret(self.url)
        answer = await self.sender.post(url, msgspec.json.encode(content), _JSON)
        word = answer.body.decode(errors="replace").strip()
        if answer.status != 429 and meaning(word):
            raise refused(word, f"HTTP {answer.status}")
        check(answer, self.sender.clock.wall(), [url])
        if word != "ok":
            raise unreadable(answer, url)


class _Marks(msgspec.Struct, frozen=True):
    event_payload: Json = {}


class _Posted(msgspec.Struct, frozen=True):
    ts: str = ""
    metadata: _Marks = _Marks()


class _More(msgspec.Struct, frozen=True):
    next_cursor: str = ""


class _Reply(msgspec.Struct):
    """Of Slack's answer what a receipt needs."""

    ok: bool = False
    error: str = ""
    channel: str = ""
    ts: str = ""
    messages: list[_Posted] = []
    response_metadata: _More = _More()


def _to_call(notification: Notification, mention: Sequence[str]) -> Sequence[str]:
    called = notification.thread and notification.thread.get("called")
    return mention if notification.message.calls and not called else ()


def _place(thread: Json) -> Json:
    return {"channel": thread["channel"], "ts": thread["ts"]}


def _content(
    notification: Notification,
    message: Message,
    *,
    brief: bool = False,
    mention: Sequence[str] = (),
) -> Json:
    """With marks by which whoever may read the channel's history finds it again; no secrets."""
    marks = {
        "delivery_id": notification.delivery_id,
        "incident_id": notification.event.incident,
        "seq": notification.event.sequence,
    }
    shown = (
        slack_blocks.plain(message, mention)
        if notification.plain
        else slack_blocks.render(message, brief=brief, mention=mention)
    )
    return {**shown, "metadata": {"event_type": "deployment_watcher", "event_payload": marks}}


def _thread(notification: Notification) -> Json:
    if notification.thread is None:
        raise SinkError("no_receipt", Outcome.REPOST, detail="the message it belongs to is unknown")
    return notification.thread
