"""Slack by bot token: one message per incident, edited as it changes, its history in the thread."""

import uuid
from datetime import timedelta
from typing import Final

import msgspec

from watcher.core.message import Message
from watcher.core.model import Json, Part
from watcher.errors import Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks import slack_blocks
from watcher.sinks.answers import Answer, check, describe
from watcher.sinks.http import Secret, Sender, read_secret
from watcher.sinks.slack_answers import Progress, refused

API_URL: Final = "https://slack.com/api/"
_SPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "pages.deployment-watcher.dev")


class SlackBot:
    """Posts, edits and replies in one channel, with `chat:write`. Receipt: channel id and `ts`."""

    def __init__(
        self, name: str, sender: Sender, *, token: Secret, channel: str, api_url: str = API_URL
    ) -> None:
        self.traits = Traits(
            name, chat=True, threads=True, concurrency=1, rate=1.0, max_age=timedelta(hours=24)
        )
        self._sender = sender
        self._token = token
        self._channel = channel
        self._api_url = f"{api_url.rstrip('/')}/"
        self._progress = Progress()

    async def send(self, notification: Notification) -> Json | None:
        """Deliver one part; Outcome.REPOST when the message it belongs to is gone."""
        match notification.part:
            case Part.EDIT:
                return await self._edit(notification)
            case Part.REPLY:
                return await self._reply(notification)
            case _:
                message = slack_blocks.summary(notification.message)
                content = self._content(notification, message, brief=False)
                content["client_msg_id"] = notification.delivery_id
                return await self._call("chat.postMessage", {"channel": self._channel, **content})

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _edit(self, notification: Notification) -> Json:
        thread = _thread(notification)
        message = slack_blocks.summary(notification.message)
        content = self._content(notification, message, brief=False)
        return await self._call("chat.update", {**thread, **content})

    async def _reply(self, notification: Notification) -> Json:
        thread = _thread(notification)
        delivery = notification.delivery_id
        pages = slack_blocks.pages(notification.message, slack_blocks.LIST_LINES)
        receipt: Json = thread
        for number in range(self._progress.sent(delivery), len(pages)):
            page = pages[number]
            body = {
                "channel": thread["channel"],
                "thread_ts": thread["ts"],
                "reply_broadcast": page.broadcast,
                "client_msg_id": str(uuid.uuid5(_SPACE, f"{delivery}/{number}")) if number else delivery,
                **self._content(notification, page, brief=True),
            }  # fmt: skip
            receipt = await self._call("chat.postMessage", body)
            self._progress.advance(delivery, number + 1, len(pages))
        return receipt

    def _content(self, notification: Notification, message: Message, *, brief: bool) -> Json:
        marks = slack_blocks.metadata(notification.event, notification.delivery_id)
        if notification.plain:
            return {**slack_blocks.plain(message), "metadata": marks}
        return {**slack_blocks.render(message, brief=brief), "metadata": marks}

    async def _call(self, method: str, body: Json) -> Json:
        token = read_secret(self._token)
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json; charset=utf-8",
        }
        answer = await self._sender.post(self._api_url + method, msgspec.json.encode(body), headers)
        check(answer, self._sender.clock.wall(), [token])
        return _receipt(answer, token)


class _Reply(msgspec.Struct):
    """Of Slack's answer what a receipt needs."""

    ok: bool
    error: str = ""
    channel: str = ""
    ts: str = ""


def _receipt(answer: Answer, token: str) -> Json:
    """Only `ok` with a `ts` is success: anything else may come from a proxy, or be half done."""
    try:
        reply = msgspec.json.decode(answer.body, type=_Reply)
    except msgspec.DecodeError:
        raise _unreadable(answer, token) from None
    if not reply.ok:
        raise refused(reply.error)
    if not (reply.channel and reply.ts):
        raise _unreadable(answer, token)
    return {"channel": reply.channel, "ts": reply.ts}


def _unreadable(answer: Answer, token: str) -> SinkError:
    return SinkError("bad_answer", Outcome.RETRY, detail=describe(answer, [token]), ambiguous=True)


def _thread(notification: Notification) -> Json:
    if notification.thread is None:
        raise SinkError("no_receipt", Outcome.REPOST, detail="the message it belongs to is unknown")
    return notification.thread
