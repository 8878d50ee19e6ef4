"""The `watcher` command: reads flags, calls what does the work, prints what it says."""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from watcher import __version__, ledger, pipes
from watcher.core.message import visible
from watcher.errors import ClusterError, ConfigError, WatcherError
from watcher.terminal import ConfigFile, Output, load, print_json, print_table

if TYPE_CHECKING:
    from watcher.config import ClusterSettings, Config
    from watcher.core.model import DeploymentSnapshot, Json
    from watcher.web.deployments import Report

# Whatever takes long to import is imported by the command that needs it: `--help` is quick.


class _Commands(TyperGroup):
    """Leaves exit codes 0 and 1 to what was found: an answer that nobody took has another one."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as what it overrides
        """Run the command; raises WatcherError, and whatever the command raises."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            pipes.silence(sys.stdout)
            if error.errno == errno.EPIPE:
                raise typer.Exit(141) from None  # as a shell has it of those who die of SIGPIPE
            raise WatcherError(f"standard output: {error.strerror}") from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="The configuration: check it, show it, describe it.")
app.add_typer(config_app, name="config", no_args_is_help=True)
app.add_typer(ledger.outbox_app, name="outbox", no_args_is_help=True)
app.add_typer(ledger.audit_app, name="audit", no_args_is_help=True)

Kubeconfig = Annotated[str | None, typer.Option(help="In place of the cluster's own.")]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context to use.")]
Address = Annotated[str | None, typer.Option(help="Where to serve health: `:8080`.")]


def main() -> None:
    """Run the command line: errors are one line each on standard error, with exit code 2."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever has started us
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    try:
        try:
            app()
        finally:
            pipes.end()
    except WatcherError as error:
        _tell(_problems(error))
        sys.exit(2)


def _tell(problems: Iterable[str]) -> None:
    from watcher.config.secrets import redact

    for problem in problems:
        print(f"watcher: {visible(redact(problem))}", file=sys.stderr)


def _problems(error: WatcherError) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else [str(error)]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"watcher {__version__}")
        raise typer.Exit


@app.callback()
def logging(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Follow every Kubernetes Deployment, and tell when one is degraded or recovered."""
    from watcher import audit

    audit.configure(sys.stderr, "warning", json=not sys.stderr.isatty())


@app.command()
def run(
    config: ConfigFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    address: Address = None,
) -> None:
    """Follow the clusters and tell, until stopped."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heeded: it asks for no end
    import structlog

    log = structlog.stdlib.get_logger("watcher")
    try:
        _run(config, kubeconfig=kubeconfig, context=context, address=address)
    except ExceptionGroup as died:  # a loop that should never end; a restart is the cure
        log.critical("process.died", exc_info=died)
        raise typer.Exit(1) from None
    except WatcherError as error:
        if sys.stderr.isatty():
            raise
        for problem in _problems(error):
            log.critical("process.refused", error=problem)
        raise typer.Exit(2) from None


def _run(config: Path | None, **flags: str | None) -> None:
    import structlog

    from watcher import audit
    from watcher.app import run as run_app
    from watcher.config.load import Source

    source = Source(config, dict(os.environ), flags)
    settings = source.load()
    audit.configure(sys.stderr, "info", json=not sys.stderr.isatty())
    audit.emit(
        "config.loaded", source=str(config or "environment"), told=settings.told,
        clusters=[cluster.name for cluster in settings.clusters],
        sinks=[sink.name for sink in settings.sinks],
    )  # fmt: skip
    if settings.sinks == type(settings).model_fields["sinks"].default:
        log = structlog.stdlib.get_logger("watcher")
        log.warning("sinks.none_configured", so="what is to be told is printed on standard output")
    asyncio.run(run_app(settings, source=source))


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
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Only this one.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="JSON, YAML; - is stdin.")
    ] = None,
    output: Output = "table",
    config: ConfigFile = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Judge Deployments as they are now. Exit code: 0 none degraded, 1 some, 2 cannot tell.

    One look has no memory: what was just scaled up looks like what lost pods,
    and counts as degraded here; `watcher run` gives it scale_up_grace.
    """
    from msgspec.structs import asdict

    from watcher.check import exit_code, from_text, judge
    from watcher.clock import SystemClock
    from watcher.core.policy import HealthPolicy

    clusters, grace = 1, HealthPolicy().scale_up_grace
    unseen, empty = dict[str, str](), dict[str, str]()
    if file is not None:
        found = from_text(_read(file), "stdin" if file == "-" else file)
        found = [s for s in found if namespace in (None, s.namespace)]
    else:
        settings = load(config, kubeconfig=kubeconfig, context=context)
        found, unseen, empty = asyncio.run(_list_live(settings, namespace))
        clusters, grace = len(settings.clusters), settings.health.scale_up_grace
    if namespace is not None and not (found or unseen):
        raise WatcherError(f"no Deployments in namespace {namespace}")
    answer = judge(found, SystemClock().wall(), grace, fresh=not unseen)
    if output == "json":
        print_json(asdict(answer) | ({"errors": errors} if (errors := unseen | empty) else {}))
    elif len(unseen) < clusters:
        _print_report(answer, which_cluster=clusters > 1)
    _tell([*unseen.values(), *empty.values()])
    raise typer.Exit(2 if unseen else exit_code(answer) or (2 if empty else 0))


@app.command()
def replay(
    file: Annotated[str, typer.Argument(help="JSON lines; - is stdin.")],
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o")] = "text",
) -> None:
    """Run a timeline through the observer with a virtual clock, and print what would be sent."""
    from watcher.replay import replay as play

    lines = _read(file).split("\n")

    async def show() -> bool:
        sent = False
        async with aclosing(play(lines, "stdin" if file == "-" else file)) as events:
            async for line in events:
                print(json.dumps(line) if output == "json" else _in_words(line), flush=True)
                sent = True
        return sent

    if not asyncio.run(show()):
        print("nothing would be sent", file=sys.stderr if output == "json" else sys.stdout)


@app.command()
def migrate(config: ConfigFile = None) -> None:
    """Bring the store's schema up to date; safe to run twice and at the same time."""
    from watcher.config.load import load as load_from
    from watcher.stores.database import migrate as bring_up_to_date

    # A Helm hook has the watcher's variables without its file: some make sense only together.
    env = {k: v for k, v in os.environ.items() if k.startswith(("DATABASE_URL", "WATCHER_STORE"))}
    before, after = bring_up_to_date(load_from(config, env, {}).store.url.read())
    if before is None:
        print(f"schema created at {after}")
    else:
        done = f"schema {after}: nothing to do"
        print(done if before == after else f"schema {before} -> {after}")


app.command()(ledger.history)


@app.command()
def test_notify(
    sink: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    config: ConfigFile = None,
) -> None:
    """Send one clearly marked test to each sink; exit code 1 when one did not take it."""
    from watcher.trial import test_notify as test

    settings = load(config)
    if sink is not None and sink not in (known := [each.name for each in settings.sinks]):
        raise ConfigError([f"no sink is called {sink!r}; there are: {', '.join(known)}"])
    results = asyncio.run(test(settings, sink))
    rows = [(r.sink, "ok" if r.ok else "failed", f"{r.latency:.3f} s", r.error) for r in results]
    print_table(("sink", "result", "latency", "error"), rows)
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


@config_app.command()
def validate(config: ConfigFile = None) -> None:
    """Tell every problem at once, each with its place."""
    from watcher.config.load import unusable_files, unusable_secrets

    settings = load(config)
    if wrong := unusable_secrets(settings, elsewhere=True):
        raise ConfigError(wrong)
    missing = [*unusable_files(settings), *unusable_secrets(settings), *_no_access(settings)]
    for problem in (*missing, *_doubtful(settings)):
        print(f"warning: {visible(problem)}", file=sys.stderr)
    names = ", ".join(f"{sink.name} ({sink.type})" for sink in settings.sinks)
    refused = "`watcher run` would refuse it here, for want of files or variables"
    print(f"{refused if missing else 'ok'}: {len(settings.clusters)} cluster(s); sinks: {names}")


def _no_access(settings: "Config") -> Iterator[str]:
    """What `run` would say of the kubeconfigs, which may well be right where it is to run."""
    from watcher.clock import SystemClock
    from watcher.cluster.auth import find_auth

    clock = SystemClock()
    for number, each in enumerate(settings.clusters):
        try:
            find_auth(clock, each.kubeconfig, each.context, strict_x509=each.strict_x509)
        except ConfigError as error:
            yield from (f"clusters.{number}: {problem}" for problem in error.problems)


def _doubtful(settings: "Config") -> Iterator[str]:
    """What can be meant so, and seldom is."""
    from watcher.config.load import clear_passwords

    for place in clear_passwords(settings):
        yield f"{place}: a password stands here in clear: name the whole URL, {{file: …}} or {{env: …}}"
    for number, sink in enumerate(settings.sinks):
        if sink.name not in settings.told:
            yield f"sinks.{number}: nothing is ever told to {sink.name}: it is not in route.sinks"
        if sink.type == "webhook" and not sink.secrets:
            yield f"sinks.{number}.secrets: {sink.name} is not signed: anybody could pretend to be us"


@config_app.command()
def show(config: ConfigFile = None) -> None:
    """Print what is in force, defaults included and secrets masked, as YAML."""
    import yaml

    settings = load(config)
    print(yaml.safe_dump(settings.masked(), sort_keys=False, allow_unicode=True), end="")


@config_app.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from watcher.config import json_schema

    print(json.dumps(json_schema(), indent=2))


async def _list_live(
    settings: "Config", namespace: str | None
) -> tuple[list["DeploymentSnapshot"], dict[str, str], dict[str, str]]:
    """What there is; of each cluster that cannot be asked why; in which configured namespaces nothing is."""
    from watcher.adapters import make_cluster
    from watcher.check import live
    from watcher.clock import SystemClock
    from watcher.config.secrets import redact

    unseen: dict[str, str] = {}
    empty: dict[str, str] = {}

    async def look(each: "ClusterSettings") -> Sequence["DeploymentSnapshot"]:
        if namespace is not None:
            only = {"namespaces": (namespace,), "namespaces_exclude": ()}
            each = each.model_copy(update=only)
        where = f"cluster {each.name}"
        try:
            cluster = make_cluster(each, settings, SystemClock())
            where += f" at {cluster.server}"
            lists = await live(cluster)
        except (ClusterError, ConfigError) as error:
            unseen[each.name] = visible(redact(f"{where}: {error}"))
            return []
        if namespace is None and (without := [name for name in lists if name and not lists[name]]):
            noun = "namespace" if len(without) == 1 else "namespaces"
            empty[each.name] = f"{where}: no Deployments in {noun} {', '.join(sorted(without))}"
        return [*chain.from_iterable(lists.values())]

    found = await asyncio.gather(*map(look, settings.clusters))
    return list(chain.from_iterable(found)), unseen, empty


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise WatcherError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise WatcherError(f"{file}: not UTF-8 text at byte {error.start}") from None


def _in_words(line: "Json") -> str:
    """One event of a replay: `+60.0 s  degraded  shop/checkout  below_minimum  warning`."""
    subject = line.get("cluster") or f"{line.get('namespace')}/{line.get('deployment')}"
    rest = (line.get("resolution") or line["reason"], line["severity"])
    words = (f"{line['at']:+.1f} s", line["event"], subject, *rest)
    return "  ".join(visible(str(word)) for word in words if word)


def _print_report(answer: "Report", *, which_cluster: bool) -> None:
    urgency = {"degraded": 0, "unknown": 1, "progressing": 2}
    rows = sorted(answer.deployments, key=lambda row: urgency.get(row.health, len(urgency)))
    columns = ("cluster", "namespace", "name", "ready", "available", "health", "reason", "message")
    cells = [
        (r.cluster, r.namespace, r.name, f"{r.ready}/{r.desired}", r.available, r.health, r.reason, r.message)
        for r in rows
    ]  # fmt: skip
    first = 0 if which_cluster else 1
    print_table(columns[first:], (row[first:] for row in cells))
    counted = ", ".join(f"{count} {health}" for health, count in answer.summary.items() if count)
    print(counted or "no Deployments")
