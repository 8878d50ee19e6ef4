"""Slack by incoming webhook: nothing can be edited, so every piece of news is a message of its own."""

from datetime import timedelta

import msgspec

from watcher.core.model import Json
from watcher.ports import Notification, Traits
from watcher.sinks import slack_blocks
from watcher.sinks.answers import check, unreadable
from watcher.sinks.http import Secret, Sender, read_secret
from watcher.sinks.slack_answers import meaning, refused
from watcher.sinks.slack_blocks import Unsent


class SlackWebhook:
    """Posts to the one channel that its URL belongs to; the whole URL is a secret."""

    def __init__(self, name: str, sender: Sender, *, url: Secret) -> None:
        self.traits = Traits(name, chat=True, concurrency=1, rate=1.0, max_age=timedelta(hours=24))
        self._sender = sender
        self._url = url
        self._unsent = Unsent()

    async def send(self, notification: Notification) -> Json | None:
        """Post, a long list on several pages. There is no receipt: Slack only says `ok`."""
        pages = slack_blocks.pages(notification.message)
        for number, page in self._unsent.pages(notification.delivery_id, pages):
            content = slack_blocks.render(page, brief=number > 0)
            await self._post(slack_blocks.plain(page) if notification.plain else content)
        return None

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _post(self, content: Json) -> None:
        url = read_secret(self._url)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        answer = await self._sender.post(url, msgspec.json.encode(content), headers)
        word = answer.body.decode(errors="replace").strip()
        if answer.status != 429 and meaning(word):
            raise refused(word, f"HTTP {answer.status}")
        check(answer, self._sender.clock.wall(), [url])
        if word != "ok":
            raise unreadable(answer, url)
