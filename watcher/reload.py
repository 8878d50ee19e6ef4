"""SIGHUP or a changed file: a whole new configuration comes into force, or the old one stays, loudly."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from watcher import audit
from watcher.config import Config
from watcher.config.load import Source
from watcher.errors import ConfigError
from watcher.metrics import Metrics
from watcher.ports import Clock
from watcher.threads import Threads
from watcher.view import View

NEEDS_RESTART: Final = ("clusters", "store", "web")
_LOOK: Final = timedelta(seconds=5)
"""What stands still from one look to the next is neither half written nor just being replaced."""


@dataclass(eq=False)
class Reload:
    """Reads the configuration again when it is `asked` to, or finds other content in the file.

    `adopt` lets a configuration be in force, or raises ConfigError and has changed nothing.
    """

    source: Source
    newest: Config
    adopt: Callable[[Config], None]
    asked: asyncio.Event
    clock: Clock
    view: View
    metrics: Metrics

    def __post_init__(self) -> None:
        self._started = self.newest
        self._problems: Sequence[str] = ()
        self._thread = Threads(1)

    async def run(self) -> None:
        """Look every five seconds, and when asked; never ends."""
        content: bytes | None = b""
        taken = content  # the start may have read something else than is there by now
        while True:
            asked = await self.clock.wait(self.asked, self.clock.now() + _LOOK)
            self.asked.clear()
            before, content = content, await self._thread.run(self._content)
            # What was refused may be mended elsewhere: a secret's file may be there by now.
            if asked or (content == before and (content != taken or self._problems)):
                taken = content
                await self._read(asked)

    def _content(self) -> bytes | None:
        try:
            return self.source.path.read_bytes() if self.source.path else b""
        except OSError:
            return None

    async def _read(self, asked: bool) -> None:
        try:
            config = await self._thread.run(self.source.load)
            changed = _differing(Config.model_fields, config, self.newest)
            if changed:
                started = {key: getattr(self._started, key) for key in NEEDS_RESTART}
                self.adopt(config.model_copy(update=started))
        except ConfigError as error:
            if asked or error.problems != self._problems:
                audit.emit("config.reload_failed", problems=error.problems)
            self._problems = error.problems
            self.view.config = f"the newest is refused: {error}"
        else:
            self.newest = config
            self._is_in_force(changed, asked)
        self.metrics.config_in_force.set(not self._problems)

    def _is_in_force(self, changed: Sequence[str], asked: bool) -> None:
        waiting = _differing(NEEDS_RESTART, self.newest, self._started)
        if changed or self._problems:
            now = [key for key in changed if key not in NEEDS_RESTART]
            audit.emit("config.reloaded", changed=now, needs_restart=waiting)
        elif asked:
            structlog.stdlib.get_logger("watcher").info("config.unchanged")
        self._problems = ()
        self.view.config = f"needs a restart: {', '.join(waiting)}" if waiting else ""


def _differing(keys: Iterable[str], one: Config, other: Config) -> list[str]:
    return [key for key in keys if getattr(one, key) != getattr(other, key)]
