"""One request to a dead-man monitor; its URL is the secret."""

from typing import Literal

from watcher.sinks.answers import check
from watcher.sinks.http import Secret, Sender, read_secret


class Ping:
    """Says that all is well, with nothing but the request itself."""

    def __init__(self, sender: Sender, *, url: Secret, method: Literal["GET", "POST"]) -> None:
        self._sender = sender
        self._url = url
        self._method = method

    async def send(self) -> None:
        """Ask once; any 2xx is success. Raises SinkError."""
        url = read_secret(self._url)
        answer = await self._sender.post(url, b"", {}, method=self._method)
        check(answer, self._sender.clock.wall(), [url])
