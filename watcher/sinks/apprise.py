"""Everything else, by the library Apprise: best effort, as it says of a failure only that it was one.

Its requests do not go through our sender: its own timeouts, redirects and addresses apply. Install
the extra: `pip install 'deployment-watcher[apprise]'`. Services: https://github.com/caronc/apprise.
"""

from importlib.util import find_spec

from watcher.core.events import ENDS
from watcher.core.message import visible
from watcher.core.model import Json
from watcher.errors import ConfigError, Outcome, SinkError
from watcher.ports import Notification, Traits
from watcher.sinks.http import Secret, read_secret
from watcher.threads import BusyError, Threads


class Apprise:
    """One message an event to whatever service `url` names; raises ConfigError without the library."""

    def __init__(self, name: str, *, url: Secret) -> None:
        if find_spec("apprise") is None:
            why = "needs a package that is missing: pip install 'deployment-watcher[apprise]'"
            raise ConfigError([f"sinks: {name}: {why}"])
        self.traits = Traits(name, chat=True, concurrency=1, rate=1.0)
        self._url = url
        self._thread = Threads(1)

    async def send(self, notification: Notification) -> Json | None:
        """Send once; the answer is yes or no."""
        url = read_secret(self._url)
        try:
            sent = await self._thread.run(lambda: _notify(url, notification))
        except BusyError as error:
            raise SinkError("blocked", Outcome.RETRY, detail=str(error)) from None
        if not sent:
            raise SinkError("not_sent", Outcome.RETRY, detail="Apprise does not say why")
        return None


def _notify(url: str, notification: Notification) -> bool:
    import apprise

    service = apprise.Apprise()
    if not service.add(url):
        raise SinkError("bad_url", Outcome.PARK, detail="Apprise knows no such service")
    message = notification.message
    lines = [visible(line) for line in (message.text, *message.lines, *message.notes)]
    ended = notification.event.edge in ENDS
    return bool(
        service.notify(
            title=f"{message.symbol} {visible(message.title, 250)}",
            body="\n".join(lines),
            notify_type=apprise.NotifyType.SUCCESS if ended else apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
        )
    )
