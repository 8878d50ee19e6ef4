"""The far ends of the notifications on loopback: a Slack, and a receiver of signed webhooks."""

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

import jsonschema
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from msgspec import Struct
from standardwebhooks import Webhook as Verifier

from tests.controlplane.client import Json
from tests.elsewhere import entered, loop_elsewhere
from watcher.clock import SystemClock
from watcher.testing.slack import FakeSlack

T = TypeVar("T")

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "webhook.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)
POLL_SECONDS = 0.05


def eventually(
    what: Callable[[], T | None], within: float = 30, instead: Callable[[], object] | None = None
) -> T:
    """Poll until it is neither None nor False; the failure shows what was there `instead`."""
    deadline = time.monotonic() + within
    while (found := what()) is None or found is False:
        if time.monotonic() > deadline:
            shown = "" if instead is None else f", but: {instead()}"
            raise AssertionError(f"not within {within} s{shown}")
        time.sleep(POLL_SECONDS)
    return found


class Request(Struct, frozen=True):
    """A webhook as it came in."""

    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """Takes every webhook and keeps it raw; reading one verifies it with tools that are not ours."""

    def __init__(self) -> None:
        self.secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        self.requests: list[Request] = []
        self._events: list[Json] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://127.0.0.1:{1}/hook".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def events(self) -> list[Json]:
        """The CloudEvents received: signed by us, well formed, and as the published schema says.

        Each is verified when it is first read, since a signature is good for five minutes.
        """
        self._events += map(self._read, self.requests[len(self._events) :])
        return [*self._events]

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(headers, await request.read()))
        return web.Response(status=204)

    def _read(self, request: Request) -> Json:
        body: Json = Verifier(self.secret).verify(request.body.decode(), dict(request.headers))
        parsed = from_http_event(HTTPMessage(dict(request.headers), request.body))
        assert (parsed.get_id(), parsed.get_type()) == (body["id"], body["type"])
        assert body["data"]["delivery"] == request.headers["webhook-id"]
        VALIDATOR.validate(body)
        return body


@contextlib.contextmanager
def receivers() -> Iterator[tuple[FakeSlack, Receiver]]:
    """Serve both from a thread of their own, so that a test may block."""
    with (
        loop_elsewhere("receivers") as loop,
        entered(FakeSlack(SystemClock()), loop) as slack,
        entered(Receiver(), loop) as hook,
    ):
        yield slack, hook
