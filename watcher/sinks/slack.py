"""Slack by bot token or by incoming webhook: what is sent, and when it counts as delivered."""

import uuid
from contextlib import suppress
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from watcher.core.message import Message
from watcher.core.model import Json, Part
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks import slack_blocks
from watcher.sinks.answers import check, unreadable
from watcher.sinks.http import Secret, Sender, read_secret
from watcher.sinks.slack_answers import meaning, refused
from watcher.sinks.slack_blocks import LIST_LINES, Unsent

API_URL: Final = "https://slack.com/api/"
_PAGES: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "pages.deployment-watcher.dev")
_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_BEARABLE: Final = Traits("", chat=True, concurrency=1, rate=1.0, max_age=timedelta(hours=24))


class SlackBot:
    """One message per incident, edited as it changes, its history in the thread.

    Needs `chat:write`. Receipt: channel id and `ts`.
    """

    def __init__(
        self, name: str, sender: Sender, *, token: Secret, channel: str, api_url: str = API_URL
    ) -> None:
        self.traits = replace(_BEARABLE, name=name, threads=True)
        self._sender = sender
        self._token = token
        self._channel = channel
        self._api_url = f"{api_url.rstrip('/')}/"
        self._unsent = Unsent()

    async def send(self, notification: Notification) -> Json | None:
        """Deliver one part; Outcome.REPOST when the message it belongs to is gone."""
        if notification.part is Part.REPLY:
            return await self._reply(notification, _thread(notification))
        card = _content(notification, slack_blocks.summary(notification.message))
        if notification.part is Part.EDIT:
            return await self._call("chat.update", {**_thread(notification), **card})
        post = {"channel": self._channel, "client_msg_id": notification.delivery_id}
        return await self._call("chat.postMessage", {**post, **card})

    async def _reply(self, notification: Notification, thread: Json) -> Json:
        delivery, receipt = notification.delivery_id, thread
        pages = slack_blocks.pages(notification.message, LIST_LINES)
        for number, page in self._unsent.pages(delivery, pages):
            page_id = str(uuid.uuid5(_PAGES, f"{delivery}/{number}")) if number else delivery
            body = {
                "channel": thread["channel"],
                "thread_ts": thread["ts"],
                "reply_broadcast": page.broadcast,
                "client_msg_id": page_id,
                **_content(notification, page, brief=True),
            }
            receipt = await self._call("chat.postMessage", body)
        return receipt

    async def _call(self, method: str, body: Json) -> Json:
        """Only `ok` with a `ts` is success: anything else may come from a proxy, or be half done."""
        token = read_secret(self._token)
        headers = {"Authorization": f"Bearer {token}", **_JSON}
        answer = await self._sender.post(self._api_url + method, msgspec.json.encode(body), headers)
        check(answer, self._sender.clock.wall(), [token])
        reply = _Reply()
        with suppress(msgspec.DecodeError):
            reply = msgspec.json.decode(answer.body, type=_Reply)
        if reply.ok and reply.channel and reply.ts:
            return {"channel": reply.channel, "ts": reply.ts}
        raise refused(reply.error) if reply.error else unreadable(answer, token)


class SlackWebhook:
    """Every piece of news is a message of its own, as nothing can be edited; the URL is a secret."""

    def __init__(self, name: str, sender: Sender, *, url: Secret) -> None:
        self.traits = replace(_BEARABLE, name=name)
        self._sender = sender
        self._url = url
        self._unsent = Unsent()

    async def send(self, notification: Notification) -> Json | None:
        """Post, a long list on several pages. There is no receipt: Slack only says `ok`."""
        pages = slack_blocks.pages(slack_blocks.compact(notification.message))
        for number, page in self._unsent.pages(notification.delivery_id, pages):
            content = slack_blocks.render(page, brief=number > 0)
            await self._post(slack_blocks.plain(page) if notification.plain else content)
        return None

    async def _post(self, content: Json) -> None:
        url = read_secret(self._url)
        answer = await self._sender.post(url, msgspec.json.encode(content), _JSON)
        word = answer.body.decode(errors="replace").strip()
        if answer.status != 429 and meaning(word):
            raise refused(word, f"HTTP {answer.status}")
        check(answer, self._sender.clock.wall(), [url])
        if word != "ok":
            raise unreadable(answer, url)


class _Reply(msgspec.Struct):
    """Of Slack's answer what a receipt needs."""

    ok: bool = False
    error: str = ""
    channel: str = ""
    ts: str = ""


def _content(notification: Notification, message: Message, *, brief: bool = False) -> Json:
    """With marks by which whoever may read the channel's history finds it again; no secrets."""
    marks = {
        "delivery_id": notification.delivery_id,
        "incident_id": notification.event.incident,
        "seq": notification.event.sequence,
    }
    plain = notification.plain
    shown = slack_blocks.plain(message) if plain else slack_blocks.render(message, brief=brief)
    return {**shown, "metadata": {"event_type": "deployment_watcher", "event_payload": marks}}


def _thread(notification: Notification) -> Json:
    if notification.thread is None:
        raise SinkError("no_receipt", Outcome.REPOST, detail="the message it belongs to is unknown")
    return notification.thread
