"""The record's echo: one line for each thing that happened, written after it was committed.

The names and their fields are the table below; docs/audit.md says what they mean.
"""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watcher import pipes
from watcher.clock import SystemClock
from watcher.config.secrets import redact
from watcher.core.message import visible
from watcher.core.words import rfc3339
from watcher.ports import Clock

SCHEMA: Final = 1
"""Of the lines: counts up when a field changes its meaning or goes."""

_INCIDENT: Final = (
    "incident", "event_id", "sequence", "type", "cluster", "namespace", "deployment", "uid",
    "severity", "reason", "message", "at", "since", "opened_at", "resolution", "blind_for",
)  # fmt: skip
_DEBOUNCED: Final = (
    "cluster", "namespace", "deployment", "uid", "severity", "reason", "message", "since", "due",
)  # fmt: skip
_DIGEST: Final = ("incident", "event_id", "sequence", "cluster", "sink", "at", "members")
_NOTIFICATION: Final = (
    "delivery", "event_id", "incident", "sequence", "sink", "part", "reason", "digest", "due",
    "attempts", "error", "ambiguous", "latency", "took",
)  # fmt: skip
_SINK: Final = ("incident", "event_id", "sequence", "sink", "severity", "message", "at", "since")
_OUTCOMES: Final = (
    "queued", "suppressed", "grouped", "sent", "deferred", "parked", "abandoned", "superseded",
    "expired",
)  # fmt: skip

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    **{f"incident.{e}": _INCIDENT for e in ("opened", "flapping", "updated", "resolved", "closed")},
    "incident.debounced": _DEBOUNCED,
    **{f"digest.{e}": _DIGEST for e in ("opened", "updated", "ended")},
    **{f"notification.{outcome}": _NOTIFICATION for outcome in _OUTCOMES},
    "notification.redriven": ("delivery", "event_id", "incident", "sink", "reason", "at", "by"),
    "cluster.listed": ("cluster", "scope", "reason", "deployments"),
    "cluster.rewound": ("cluster", "scope", "reached", "version", "deployments"),
    "cluster.watch_broken": ("cluster", "scope", "reason", "error"),
    "cluster.namespace_empty": ("cluster", "namespace", "message"),
    "cluster.probe_failed": ("cluster", "reason", "error"),
    "cluster.probe_succeeded": ("cluster", "version", "latency"),
    **dict.fromkeys(("sink.failing", "sink.restored"), _SINK),
    **dict.fromkeys(("queue.filling", "queue.restored"), tuple(f for f in _SINK if f != "sink")),
    "sink.removed": ("sink", "deliveries"),
    "sink.redriven": ("sink", "deliveries", "at", "by"),
    "dead_man.withheld": ("reason",),
    "dead_man.resumed": (),
    "dead_man.failed": ("reason", "error"),
    "store.failing": ("error",),
    "store.restored": (),
    "store.row_unreadable": ("table", "key"),
    "store.created": ("url",),
    "lease.gained": (),
    "lease.ended": (),
    "config.loaded": ("source", "clusters", "sinks", "told"),
    "config.reloaded": ("changed", "needs_restart"),
    "config.reload_failed": ("problems",),
    "process.started": ("version", "address"),
    "process.stopped": ("reason",),
}
"""Every audit event and its fields: all of them are on each line, null where there is nothing."""

_FAULTS: Final = frozenset(
    {
        "notification.deferred", "notification.parked", "notification.abandoned",
        "notification.expired", "sink.failing", "queue.filling", "cluster.watch_broken",
        "cluster.namespace_empty", "cluster.rewound", "cluster.probe_failed", "store.failing",
        "store.row_unreadable", "dead_man.withheld",
        "dead_man.failed", "config.reload_failed",
    }
)  # fmt: skip
_LOG: Final = structlog.stdlib.get_logger("watcher.audit")
_LONGEST: Final = 4000
"""Characters of one value."""


def configure(stream: TextIO, level: str, json: bool, clock: Clock | None = None) -> None:
    """Send every log line of the process to `stream`: as JSON, or to be read by people.

    Audit lines are written whatever the level, those of libraries from warning on. All take the
    same way, so that theirs too are one line each and hold no secret.
    """
    clock = clock or SystemClock()

    def dated(_: WrappedLogger, level: str, line: EventDict) -> EventDict:
        head = {"ts": clock.wall(), "level": level, "event": line["event"]}
        return {**head, **{k: v for k, v in line.items() if json or v not in (None, "")}}

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.format_exc_info,
        dated,
        _inert,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="ts")
    )
    handler = logging.StreamHandler(pipes.log(stream))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("watcher").setLevel(level.upper())
    logging.getLogger("watcher.audit").setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def emit(name: str, **fields: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Write one audit line; its name and fields are of the table above."""
    if unknown := fields.keys() - set(FIELDS[name]):
        raise TypeError(f"{name} has no field {', '.join(sorted(unknown))}")
    write = _LOG.warning if name in _FAULTS else _LOG.info
    write(name, audit=SCHEMA, **(dict.fromkeys(FIELDS[name]) | fields))


def _inert(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Hide secrets, and let no value start a line, colour a terminal or fill the disk."""
    return {key: value if key.startswith("_") else _text(value) for key, value in line.items()}


def _text(value: object) -> Any:  # noqa: ANN401 - whatever JSON can say
    match value:
        case None | bool() | int() | float():
            return value
        case datetime():
            return rfc3339(value)
        case timedelta():
            return round(value.total_seconds(), 3)
        case list() | tuple():
            return [_text(item) for item in value]
        case _:
            return visible(redact(str(value)), _LONGEST)
