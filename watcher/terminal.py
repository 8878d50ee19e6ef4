"""What commands share: their options, and how they print so that nothing printed takes effect."""

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from watcher.core.message import visible

if TYPE_CHECKING:
    from watcher.config import Config

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; without one, variables.")
]
Output = Annotated[Literal["table", "json"], typer.Option("--output", "-o")]


def load(config: Path | None, **flags: str | None) -> "Config":
    """Read file, variables and flags; raises ConfigError."""
    from watcher.config.load import load

    return load(config, os.environ, flags)


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Whole lines, to be piped on; ten thousand of them at once."""
    table = [[column.upper().replace("_", " ") for column in columns]]
    table += [[visible(_cell(value), 500) for value in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())


def print_json(value: object) -> None:
    """Indented, with times as RFC 3339."""
    print(json.dumps(msgspec.to_builtins(value, str_keys=True), indent=2))


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%m-%d %H:%M:%S}"
    return "" if value is None else str(value)
