"""The commands on the record: who was told what, what is stuck, and whether it all adds up."""

import asyncio
import getpass
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from watcher.core.delivery import DeliveryState, Part
from watcher.core.durations import format_duration, parse_duration, parse_time
from watcher.core.ledger import REDRIVABLE, UNSETTLED, Echoed, Finding, LedgerRow, Verification
from watcher.core.retry import SinkState
from watcher.core.words import readable, trouble
from watcher.errors import WatcherError
from watcher.terminal import ConfigFile, Output, load, print_json, print_table

if TYPE_CHECKING:
    from watcher.ports import Store

T = TypeVar("T")
outbox_app = typer.Typer(help="What is still to be sent, or was given up: list it, send it again.")
audit_app = typer.Typer(help="The record: does it add up?")

Sink = Annotated[str, typer.Option(help="Only this sink.")]
IncidentId = Annotated[str, typer.Option(help="Its id, or the end of it that messages show.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Newest ones.")]
_DEPLOYMENT = "NAMESPACE/NAME, or NAMESPACE/; with -n the name alone"
_LONGEST_NAME = 24
_CALLED = {DeliveryState.DELIVERED: "sent", DeliveryState.DEAD: "abandoned"}  # in the log
_FINAL = {_CALLED.get(state, str(state)): state for state in set(DeliveryState) - UNSETTLED}


def history(
    deployment: Annotated[str, typer.Argument(help=_DEPLOYMENT)] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only this one.")] = "",
    since: Annotated[str, typer.Option(help="24h or 7d back, or a time: 2026-11-22T14:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Likewise.")] = "",
    sink: Sink = "",
    incident: IncidentId = "",
    delivery: Annotated[str, typer.Option(help="Its id (`webhook-id`), or the end of it.")] = "",
    limit: Limit = 200,
    output: Output = "table",
    config: ConfigFile = None,
) -> None:
    """Who was told what, when and how late; and who was not, and why."""
    first, last, (within, name) = _moment(since), _moment(until), _named_by(deployment, namespace)
    rows = _ask(config, sink, lambda store: store.history(
        limit + 1, since=first, until=last, namespace=within, name=name, sink=sink,
        incident=incident, delivery=delivery,
    ))  # fmt: skip
    rows = _cut(rows, limit)
    if output == "json":
        print_json([row.as_json() for row in rows])
    elif not rows:
        mistyped = "nothing on record fits, so look at the id"
        nobody = "nothing on record: nobody was to be told anything of this"
        print(mistyped if incident or delivery else nobody)
    else:
        columns = ("at_utc", "subject", "event", "incident", "sink", "state", "late", "why")
        _print_rows(columns, rows, lambda row: (
            row.recorded_at, _subject(row), _event(row), row.delivery.incident[-8:], _sink(row),
            row.delivery.state, _late(row), _why(row),
        ))  # fmt: skip


def _named_by(deployment: str, namespace: str) -> tuple[str, str]:
    """Namespace and name, each empty for any; raises WatcherError for what can find nothing."""
    first, slash, name = deployment.rpartition("/")
    if "/" in first or (name and not slash and not namespace):
        raise WatcherError(f"{deployment}: must be {_DEPLOYMENT}")
    if namespace and first not in ("", namespace):
        raise WatcherError(f"{deployment}: contradicts --namespace {namespace}")
    return first or namespace, name


@outbox_app.command("list")
def list_outbox(
    sink: Sink = "",
    state: Literal["pending", "inflight", "parked", "dead", "expired"] | None = None,
    limit: Limit = 200,
    output: Output = "table",
    config: ConfigFile = None,
) -> None:
    """What waits to be sent, what waits for a human, and what was given up; and why."""
    states = [DeliveryState(state)] if state else UNSETTLED | REDRIVABLE
    now = _now()

    async def look(store: "Store") -> tuple[Sequence[LedgerRow], dict[str, SinkState]]:
        rows = await store.history(sink=sink, states=states, limit=limit + 1)
        sinks = {row.delivery.sink for row in rows}
        return rows, {name: await store.sink_state(name) for name in sinks}

    rows, held = _ask(config, sink, look)
    rows = _cut(rows, limit)

    def next_at(row: LedgerRow) -> datetime | None:
        state, reason = row.delivery.state, row.delivery.reason
        removed = state is DeliveryState.PARKED and reason == "sink_removed"
        if removed or row.settled_at is not None or state is DeliveryState.INFLIGHT:
            return None
        return max(filter(None, (row.delivery.due, held[row.delivery.sink].held_until(now))))

    def why(row: LedgerRow) -> str:
        sink = held[row.delivery.sink]
        waits = sink.held_until(now) and row.delivery.state is DeliveryState.PENDING
        return _why(row) or (f"the sink waits: {trouble(sink.trouble)}" if waits else "")

    if output == "json":
        print_json([row.as_json() | {"due": next_at(row), "why": why(row)} for row in rows])
    elif not rows:
        print("nothing waits, and nothing was given up")
    else:
        columns = (
            "id", "since_utc", "subject", "event", "sink", "state", "first_tried", "next", "why",
        )  # fmt: skip
        _print_rows(columns, rows, lambda row: (
            row.delivery.id[-8:], row.recorded_at, _subject(row), _event(row), _sink(row),
            row.delivery.state, row.first_attempt_at, _in(next_at(row), now), why(row),
        ))  # fmt: skip


@outbox_app.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(help="As `list` shows them.")] = None,
    sink: Sink = "",
    incident: IncidentId = "",
    state: Literal["dead", "parked", "expired"] | None = None,
    by: Annotated[str, typer.Option(help="Who is on record for it.")] = "",
    output: Output = "table",
    config: ConfigFile = None,
) -> None:
    """Make what was given up or parked due again, under the same id, beside a running process."""
    from watcher import audit

    states = [DeliveryState(state)] if state else REDRIVABLE
    known = {each.name for each in load(config).sinks}
    by, now = by or f"{getpass.getuser()}@{socket.gethostname()}", _now()

    async def again(store: "Store") -> tuple[Sequence[LedgerRow], Sequence[str]]:
        found = [await _named(store, each, sink, incident) for each in ids or ()]
        if not ids:
            wanted = store.history(sink=sink, incident=incident, states=states, limit=100_000)
            found = list(await wanted)
        able = [r.delivery.id for r in found if r.delivery.sink in known]
        return found, await store.redrive(able, now, by, after_end=bool(ids))

    found, done = _ask(config, sink, again)
    left = {row.delivery.id: _left_out(row, known) for row in found if row.delivery.id not in done}
    for d in (row.delivery for row in found if row.delivery.id in done):
        audit.emit(
            "notification.redriven", delivery=d.id, event_id=d.event, incident=d.incident,
            sink=d.sink, reason=d.reason, at=now, by=by,
        )  # fmt: skip
    if output == "json":
        print_json({"redriven": done, "left_out": left, "at": now, "by": by})
    else:
        print(f"{len(done)} due again; a running watcher sends them within 15 s")
        for delivery, why in left.items():
            print(f"left out {delivery}: {why}")
    raise typer.Exit(1 if ids and left else 0)


async def _named(store: "Store", name: str, sink: str, incident: str) -> LedgerRow:
    rows = await store.history(delivery=name, sink=sink, incident=incident, limit=2)
    if len(rows) != 1:
        raise WatcherError(f"{'several deliveries end' if rows else 'no delivery ends'} in {name}")
    return rows[0]


def _left_out(row: LedgerRow, sinks: set[str]) -> str:
    sink, state = row.delivery.sink, row.delivery.state
    if sink not in sinks:
        return f"no sink is called {sink} any more"
    if state not in REDRIVABLE:
        return f"it is {state}"
    return f"{sink} has the end of its incident; name this id to send it nevertheless"


@audit_app.command()
def verify(
    log: Annotated[Path | None, typer.Option(help="An audit log to compare it with.")] = None,
    output: Output = "table",
    config: ConfigFile = None,
) -> None:
    """Reconcile incidents, events and deliveries. Exit code: 0 they add up, 1 not, 2 cannot tell."""
    from watcher.stores.database import reading
    from watcher.stores.ledger import followed, kept

    settings, now = load(config), _now()
    echoed = _echoed(log) if log else None
    with reading(settings.store.url.read()) as (db, alive):
        check = Verification(followed(db), now, now - settings.store.retain, alive=alive)
        found = list(check.verify(kept(db), echoed))
    wrong = [each for each in found if not each.remark]
    if output == "json":
        names = ("incidents", "events", "deliveries")
        seen = dict(zip(names, check.counts, strict=True))
        print_json({"ok": not wrong, **seen, "findings": found})
    else:
        for each in found:
            print(_in_a_line(each))
        numbers = "{} incidents, {} events, {} deliveries".format(*check.counts)
        print(f"{numbers}: {len(wrong)} findings, {len(found) - len(wrong)} remarks")
    raise typer.Exit(1 if wrong else 0)


def _in_a_line(each: Finding) -> str:
    from watcher.core.message import visible

    kind = "remark" if each.remark else "wrong"
    return visible(" ".join(filter(None, (f"{kind}: {each.incident}", each.subject, each.problem))))


def _echoed(log: Path) -> Echoed:
    """Read a log; lines that are none of the audit's are passed over. Raises WatcherError."""
    events: dict[str, datetime] = {}
    deliveries: dict[str, tuple[str, DeliveryState | None]] = {}
    times: list[datetime] = []
    number = 0
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 - an error tells it
                if '"audit"' not in line or not isinstance(told := _object(line), dict):
                    continue
                times = [*times[:1], parse_time(told["ts"])]
                if told.get("delivery"):
                    end = _FINAL.get(str(told["event"]).rpartition(".")[2])
                    deliveries[told["delivery"]] = (told["event_id"], end)
                elif told.get("event_id"):
                    events[str(told["event_id"])] = parse_time(told["at"])
    except OSError as error:
        raise WatcherError(f"{log}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise WatcherError(f"{log}:{number}: not an audit line as this version has it") from None
    if not times:
        raise WatcherError(f"{log}: there is no audit line in it")
    return Echoed(events, deliveries, times[0], times[-1])


def _object(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None  # cut off, by a kill or by rotation


def _ask(config: Path | None, sink: str, what: "Callable[[Store], Awaitable[T]]") -> T:
    """Ask the store, if it is one and knows the sink; raises WatcherError."""
    from watcher.stores.database import open_store, reading

    settings = load(config)
    url, known = settings.store.url.read(), [each.name for each in settings.sinks]
    if url.startswith("sqlite:"):  # where opening it would make one of any file
        with reading(url):
            pass

    async def asked() -> T:
        store = open_store(url)
        try:
            if sink and sink not in known and not await store.history(sink=sink, limit=1):
                there = f"there are: {', '.join(known)}"
                raise WatcherError(f"no sink is or was called {sink!r}; {there}")
            return await what(store)
        finally:
            await store.close()

    return asyncio.run(asked())


def _now() -> datetime:
    from watcher.clock import SystemClock

    return SystemClock().wall()


def _moment(text: str) -> datetime | None:
    """A duration ago, or a time; raises WatcherError."""
    try:
        if not text or text[-1] in "smhd":
            return _now() - parse_duration(text) if text else None
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise WatcherError(f"{text}: neither a duration such as 24h nor a time") from None


def _cut(rows: Sequence[LedgerRow], limit: int) -> Sequence[LedgerRow]:
    if len(rows) > limit:
        print(f"only the newest {limit} are shown, --limit shows more", file=sys.stderr)
    return rows[:limit]


def _print_rows(
    columns: Sequence[str],
    rows: Sequence[LedgerRow],
    cells: Callable[[LedgerRow], tuple[object, ...]],
) -> None:
    """A table of deliveries, with their cluster when there are several."""
    if len({row.event.subject.cluster for row in rows} - {""}) < 2:
        print_table(columns, map(cells, rows))
    else:
        named = ((row.event.subject.cluster, *cells(row)) for row in rows)
        print_table(("cluster", *columns), named)


def _subject(row: LedgerRow) -> str:
    """The end of a long name tells more than its middle."""
    name = str(row.event.subject)
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _event(row: LedgerRow) -> str:
    event = row.event
    return event.resolution or (event.edge if event.digest else event.type.rpartition(".")[2])


def _sink(row: LedgerRow) -> str:
    part = row.delivery.part
    return row.delivery.sink if part is Part.EVENT else f"{row.delivery.sink} {part}"


def _why(row: LedgerRow) -> str:
    """Why it is late, waits, was given up, or is told otherwise; and by whom it was asked for again."""
    delivery = row.delivery
    words = [trouble(": ".join(filter(None, (delivery.reason, row.error))))]
    tried = row.attempts > 1 or (row.attempts and row.settled_at is None)
    words += [f"attempts: {row.attempts}"] if tried else []
    words += [f"told by {row.superseded_by[-8:]}"] if row.superseded_by else []
    words += [f"in digest {delivery.digest[-8:]}"] if delivery.digest else []
    words += [f"redriven by {row.redriven_by}"] if row.redriven_by else []
    return ", ".join(filter(None, words))


def _late(row: LedgerRow) -> str:
    if row.late is None or row.delivery.state is not DeliveryState.DELIVERED:
        return ""
    late = timedelta(seconds=round(row.late))
    return f"{row.late:.1f}s" if row.late < 60 else format_duration(late)


def _in(at: datetime | None, now: datetime) -> str:
    return "" if at is None else f"in {readable(at - now)}" if at > now else "now"
