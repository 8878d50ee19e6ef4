"""Every error of the program, named by who is at fault and what can be done about it."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from watcher.core.delivery import Outcome as Outcome


class WatcherError(Exception):
    """Base of all errors that this program raises on purpose."""


class ConfigError(WatcherError):
    """The configuration cannot be used; `problems` has all of them, each with its YAML path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class StoreError(WatcherError):
    """The store did not take or give what was asked; nothing of it was applied."""


class Deposed(StoreError):
    """This process may not write, or not go on from what it knows: the store must be read anew."""


class Unsure(StoreError):
    """Nobody answered whether it was committed."""


class ClusterError(WatcherError):
    """An API server did not give what was asked."""

    cause_label = "error"
    """As metrics and the log have it: of each kind its name."""

    def __init_subclass__(cls, label: str = "") -> None:
        cls.cause_label = label or cls.__name__.lower()

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Expired(ClusterError):
    """410: the resource version is too old; only a new list helps."""


class Rewound(Expired):
    """The store behind the server is an older copy of the one that was watched."""


class Forbidden(ClusterError):
    """403: authenticated, but a right is missing; the message names verb, resource and scope."""


class Unauthorized(ClusterError):
    """401: the credentials were not accepted."""


class Throttled(ClusterError):
    """429: alive, and asks to be asked less."""


class Unreachable(ClusterError):
    """No answer, or a 5xx one."""


class Protocol(ClusterError):
    """An answer that the API does not allow."""


class Garbled(Protocol, label="unreadable"):
    """An event of a watch that cannot be read."""


class NotFound(Protocol, label="protocol"):
    """404: it is not there, and neither is anything that could be taken for it."""


@dataclass(eq=False)
class SinkError(WatcherError):
    """A send failed; `reason` is short, stable and free of secrets (it labels a metric)."""

    reason: str
    outcome: Outcome
    _: KW_ONLY
    detail: str = ""
    retry_after: timedelta | None = None
    ambiguous: bool = False

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
