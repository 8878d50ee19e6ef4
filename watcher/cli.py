"""The `watcher` command: reads flags, calls what does the work, prints what it says."""

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from watcher.errors import ConfigError, WatcherError

if TYPE_CHECKING:
    from watcher.config import Config
    from watcher.core.model import Json
    from watcher.ports import LedgerRow
    from watcher.web.deployments import Report

# Whatever takes long to import is imported by the command that needs it: `--help` is quick.

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The configuration: check it, show it, describe it.")
app.add_typer(config_app, name="config", no_args_is_help=True)


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


class TextOutput(StrEnum):
    """How lines are printed."""

    TEXT = "text"
    JSON = "json"


ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; without one, variables.")
]
Kubeconfig = Annotated[str | None, typer.Option(help="In place of the cluster's own.")]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context to use.")]


def main() -> None:
    """Run the command line: errors are one line each on standard error, with exit code 2."""
    try:
        app()
    except ConfigError as error:
        _fail(error.problems)
    except WatcherError as error:
        _fail([str(error)])


@app.callback()
def logging() -> None:
    """Follow every Kubernetes Deployment, and tell when one is degraded or recovered."""
    from watcher import audit

    audit.configure(sys.stderr, "warning", json=not sys.stderr.isatty())


@app.command()
def run(
    config: ConfigFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    address: Annotated[str | None, typer.Option(help="Where to serve health: `:8080`.")] = None,
) -> None:
    """Follow the clusters and tell, until stopped."""
    from watcher import audit
    from watcher.config.load import load, unusable_secrets

    flags = {"kubeconfig": kubeconfig, "context": context, "address": address}
    settings = load(config, os.environ, flags)
    if problems := unusable_secrets(settings):
        raise ConfigError(problems)
    audit.configure(sys.stderr, "info", json=not sys.stderr.isatty())
    audit.emit(
        "config.loaded",
        source=str(config) if config else "environment",
        clusters=[cluster.name for cluster in settings.clusters],
        sinks=[sink.name for sink in settings.sinks],
        told=settings.told,
    )
    import structlog

    from watcher.app import run as run_app

    try:
        asyncio.run(run_app(settings))
    except ExceptionGroup as died:  # a loop that should never end; a restart is the cure
        structlog.stdlib.get_logger("watcher").critical("process.died", exc_info=died)
        raise typer.Exit(1) from None


@app.command()
def demo(
    keep: Annotated[bool, typer.Option(help="Keep serving when the outage is over.")] = False,
) -> None:
    """Show a scripted outage on an embedded API server; no cluster, no network."""
    from rich.console import Console

    from watcher.demo import demo as run_demo

    asyncio.run(run_demo(keep, Console()))


@app.command()
def check(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n")] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-f", help="JSON or YAML instead of a cluster; - is stdin."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.TABLE,
    config: ConfigFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Judge Deployments as they are now. Exit code: 0 none degraded, 1 some, 2 cannot tell."""
    from watcher.check import exit_code, from_text, judge
    from watcher.clock import SystemClock

    if file is not None:
        found = from_text(_read(file), "stdin" if file == "-" else file)
        found = [s for s in found if namespace in (None, s.namespace)]
    else:
        from watcher.config.load import load

        flags = {"kubeconfig": kubeconfig, "context": context}
        found = asyncio.run(_list_live(load(config, os.environ, flags), namespace))
    answer = judge(found, SystemClock().wall())
    if output is Output.JSON:
        _print_json(answer)
    else:
        _print_report(answer)
    raise typer.Exit(exit_code(answer))


@app.command()
def replay(
    file: Annotated[str, typer.Argument(help="JSON lines; - is stdin.")],
    output: Annotated[TextOutput, typer.Option("--output", "-o")] = TextOutput.TEXT,
) -> None:
    """Run a timeline through the observer with a virtual clock, and print what would be sent."""
    from watcher.replay import replay as play

    lines = _read(file).split("\n")

    async def show() -> None:
        async for line in play(lines):
            print(json.dumps(line) if output is TextOutput.JSON else _in_words(line), flush=True)

    asyncio.run(show())


@app.command()
def migrate(config: ConfigFile = None) -> None:
    """Bring the store's schema up to date; safe to run twice and at the same time."""
    from watcher.config.load import load
    from watcher.stores.database import migrate as bring_up_to_date

    before, after = bring_up_to_date(load(config, os.environ, {}).store.url.read())
    print(f"schema {after}: nothing to do" if before == after else f"schema {before} -> {after}")


@app.command()
def history(
    deployment: Annotated[str, typer.Argument(help="NAMESPACE/NAME, or NAMESPACE/")] = "",
    since: Annotated[str, typer.Option(help="How far back: 24h, 7d.")] = "",
    sink: Annotated[str, typer.Option(help="Only this sink.")] = "",
    incident: Annotated[str, typer.Option(help="Only this incident.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest ones.")] = 200,
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Who was told what, when and how late; and who was not, and why."""
    from watcher.clock import SystemClock
    from watcher.config.load import load
    from watcher.core.durations import parse_duration
    from watcher.stores.database import open_store

    clock = SystemClock()
    try:
        start = clock.wall() - parse_duration(since) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    namespace, _, name = deployment.partition("/")
    url = load(config, os.environ, {}).store.url.read()
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise WatcherError(f"there is no store at {path}")

    async def read() -> Sequence["LedgerRow"]:
        store = open_store(url, clock)
        try:
            return await store.history(start, namespace, name, sink, incident, limit)
        finally:
            await store.close()

    rows = [_flat(row) for row in asyncio.run(read())]
    if output is Output.JSON:
        _print_json(rows)
    else:
        columns = ("recorded_at", "subject", "event", "sink", "part", "state", "reason", "late")
        _print_table(columns, ([row[column] for column in columns] for row in rows))


@app.command()
def test_notify(
    sink: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    config: ConfigFile = None,
) -> None:
    """Send one clearly marked test to each sink; exit code 1 when one did not take it."""
    from watcher.app import test_notify as test
    from watcher.config.load import load

    settings = load(config, os.environ, {})
    if sink is not None and sink not in (known := [each.name for each in settings.sinks]):
        raise ConfigError([f"no sink is called {sink!r}; there are: {', '.join(known)}"])
    results = asyncio.run(test(settings, sink))
    rows = [(r.sink, "ok" if r.ok else "failed", f"{r.latency:.3f} s", r.error) for r in results]
    _print_table(("sink", "result", "latency", "error"), rows)
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


@config_app.command()
def validate(config: ConfigFile = None) -> None:
    """Tell every problem at once, each with its place."""
    from watcher.config.load import load, unusable_secrets

    settings = load(config, os.environ, {})
    for problem in unusable_secrets(settings):  # they may well be there where it is to run
        print(f"warning: {problem}", file=sys.stderr)
    names = ", ".join(f"{sink.name} ({sink.type})" for sink in settings.sinks)
    print(f"ok: {len(settings.clusters)} cluster(s); sinks: {names}")


@config_app.command()
def show(
    config: ConfigFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    address: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Print what is in force, defaults included and secrets masked, as YAML."""
    import yaml

    from watcher.config.load import load

    flags = {"kubeconfig": kubeconfig, "context": context, "address": address}
    settings = load(config, os.environ, flags)
    print(yaml.safe_dump(settings.masked(), sort_keys=False, allow_unicode=True), end="")


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from watcher.config import json_schema

    print(json.dumps(json_schema(), indent=2))


async def _list_live(settings: "Config", namespace: str | None) -> list[Any]:
    from watcher.app import make_cluster
    from watcher.check import live
    from watcher.clock import SystemClock

    found = []
    for cluster in settings.clusters:
        if namespace is not None:
            cluster = cluster.model_copy(update={"namespaces": (namespace,)})
        found += await live(make_cluster(cluster, settings, SystemClock()))
    return found


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise WatcherError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise WatcherError(f"{file}: not UTF-8 text at byte {error.start}") from None


def _flat(row: "LedgerRow") -> dict[str, Any]:
    """One line of the history."""
    d, e = row.delivery, row.event
    late = None if row.settled_at is None else max(row.settled_at - row.recorded_at, timedelta(0))
    return {
        "recorded_at": row.recorded_at,
        "settled_at": row.settled_at,
        "late": round(late.total_seconds(), 3) if late is not None else None,
        "cluster": e.subject.cluster,
        "subject": str(e.subject),
        "event": e.type,
        "incident_reason": e.reason,
        "severity": e.severity,
        "at": e.at,
        "sink": d.sink,
        "part": d.part,
        "state": d.state,
        "reason": d.reason or row.error,
        "attempts": row.attempts,
        "incident": d.incident,
        "event_id": d.event,
        "delivery": d.id,
    }


def _in_words(line: "Json") -> str:
    """One event of a replay: `+60.0 s  degraded  shop/checkout  below_minimum  warning`."""
    from watcher.core.message import visible

    subject = line.get("cluster") or f"{line.get('namespace')}/{line.get('deployment')}"
    rest = (line.get("resolution") or line["reason"], line["severity"])
    words = (f"{line['at']:+.1f} s", line["event"], subject, *rest)
    return "  ".join(visible(str(word)) for word in words if word)


def _print_report(answer: "Report") -> None:
    rank = ("degraded", "unknown", "progressing")
    rows = sorted(
        answer.deployments, key=lambda r: rank.index(r.health) if r.health in rank else len(rank)
    )
    columns = ("namespace", "name", "ready", "available", "health", "reason", "message")
    ready = ((r, f"{r.ready}/{r.desired}") for r in rows)
    _print_table(
        columns,
        ((r.namespace, r.name, n, r.available, r.health, r.reason, r.message) for r, n in ready),
    )
    counted = ", ".join(f"{count} {health}" for health, count in answer.summary.items() if count)
    print(counted or "no Deployments")


def _print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Whole lines, to be piped on; ten thousand of them at once."""
    from watcher.core.message import visible

    table = [[column.upper().replace("_", " ") for column in columns]]
    table += [[visible(_cell(value), 500) for value in row] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return "" if value is None else str(value)


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _fail(problems: Iterable[str]) -> NoReturn:
    from watcher.config.secrets import redact
    from watcher.core.message import visible

    for problem in problems:
        print(f"watcher: {visible(redact(problem))}", file=sys.stderr)
    sys.exit(2)
