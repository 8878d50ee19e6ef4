"""How far one scope has come in the history of its server's store, and whether it is still that one."""

from dataclasses import dataclass
from datetime import timedelta

from watcher.ports import Clock, Stream
from watcher.view import is_older

Mark = tuple[int, str]


@dataclass(eq=False)
class History:
    """Lists and heartbeats are consistent reads: none can be older than what was known before it was
    asked for, unless the store was put back to an older copy. Only integers compare (KEP-5504).
    """

    stream: Stream
    clock: Clock
    at_most_every: timedelta
    """A server that answers lower versions for ever is listed no more often than one that fails."""
    reached: str = ""
    """The newest version known of the present history, also while a list is needed."""
    _former: str = ""
    """What that was in the history before, while the present one is yet to be listed."""

    @property
    def mark(self) -> Mark:
        """Where it stands now, for a read that is about to be asked for."""
        return self.stream.rewinds, self.reached

    def is_another(self, mark: Mark, version: str) -> bool:
        """Whether a consistent read that was asked for at `mark` is of another history."""
        rewinds, reached = mark
        last = self.stream.rewound_at
        lately = last is not None and self.clock.now() < last + self.at_most_every
        return rewinds == self.stream.rewinds and is_older(version, reached) and not lately

    def rewind(self) -> None:
        """It is another one from now on."""
        self._former, self.reached = self.reached, ""
        self.stream.rewinds += 1
        self.stream.rewound_at = self.clock.now()

    def listed(self, version: str) -> str:
        """Take in the version of a complete list; gives what was reached before, if it shows another
        history, or is the first one since that was found."""
        if not self._former and is_older(version, self.reached):
            self.rewind()
        former, self._former, self.reached = self._former, "", version
        return former
