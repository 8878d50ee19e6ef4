"""One event becomes one notification: what broke, where, how bad, since when, why, what to run first.

Written for somebody who was woken: the state comes first, every number has its unit, every time its
zone, and nothing has to be looked up to know whether anything still serves. Sources of the content:
health reference §4, delivery reference §1.9.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from shlex import quote
from typing import Final

from msgspec.structs import asdict, replace

from watcher.core import words
from watcher.core.delivery import Part
from watcher.core.events import ENDS, OPENINGS, Edge, Event, Meanwhile, Resolution
from watcher.core.health import counts
from watcher.core.message import Fact, Message, visible
from watcher.core.model import Severity
from watcher.core.summary import digest

_UNKNOWN: Final = "what changed is not known in full"
_UNSEEN: Final = (
    "Deployments that cannot be seen are not judged until it is back: silence is not health"
)
_UNSEEN_THEN: Final = "It happened, or fell due, while the watcher could not see the cluster"
_REWOUND: Final = (
    "The store behind its API server was put back to an older copy, so all of it was listed anew"
)
_UNSETTLED: Final = "It keeps failing and recovering; no further message until it settles"
_SILENCED: Final = "A silence has kept this quiet until now"


def compose(
    event: Event,
    *,
    latest: Event,
    part: Part,
    covers: Sequence[Event] = (),
    members: Sequence[Event] = (),
    now: datetime,
    late: timedelta | None = None,
    late_reason: str = "",
) -> Message:
    """Say one event: a post or an edit restates all that is current, anything else tells this one
    as it was at its time.

    `covers` are the events that this delivery stands for. `members` are the newest events of the
    incidents in a digest. `late` is how long after its record this is sent, where that matters, and
    `late_reason` what was in the way.
    """
    restates = part in (Part.POST, Part.EDIT)
    told, as_of = (latest, now) if restates else (event, event.at)
    if not told.subject.cluster:
        message = _own(told, as_of, restates)
    elif event.digest and len(members) == 1:  # a storm that did not come: its only member in full
        message = _deployment(members[0], as_of, restates)
    elif event.digest:
        message = digest(told, members, part, (*covers, event))
    elif told.subject.is_cluster:
        over = told.edge in ENDS
        message = _sight_again(told) if over else _out_of_sight(told, as_of, restates)
    else:
        message = _deployment(told, as_of, restates)
    untold = part is Part.POST and told.edge in ENDS and any(e.edge in OPENINGS for e in covers)
    if event.digest and not late_reason:  # it waits for more of them on purpose
        late = None
    delay = _delay(late, words.trouble(late_reason), untold)
    unseen = _UNSEEN_THEN if told.unseen else ""
    past = part is Part.REPLY and latest.sequence > event.sequence and not event.digest
    asides = [*filter(None, (unseen, delay, f"By now: {words.state(latest)}" if past else ""))]
    start = f"Start with: {message.command}" if message.command else ""
    news = (event, *covers)
    worsened = any(each.worsened for each in news)
    first = part is Part.POST and any(each.edge in OPENINGS for each in news)
    critical = latest.severity is Severity.CRITICAL and latest.edge not in ENDS
    return replace(
        message,
        text=" ".join(filter(None, (words.sentences(message.text, *asides), start))),
        notes=(
            *asides,
            *filter(None, message.notes),
            f"incident {short_id(event.incident)}",
        ),
        line=". ".join((f"{words.at(told.at, now)} {message.line}", *asides)),
        since=None if told.edge in ENDS else told.flaps.since if told.flaps else told.since,
        broadcast=part is Part.REPLY and (event.edge in ENDS or worsened),
        calls=part is not Part.EDIT and critical and (first or worsened),
    )


def short_id(incident: str) -> str:
    """What tells an incident from its neighbours: the start of its id is a time."""
    return incident[-8:]


def _delay(late: timedelta | None, reason: str, untold: bool) -> str:
    if untold:
        by = f"{words.readable(late)} " if late else ""
        return f"Sent {by}late, nobody was told while it lasted: {reason or 'it ended first'}"
    if late is None:
        return ""
    return f"Delayed {words.readable(late)}{reason and f': {reason}'}"


def _deployment(event: Event, now: datetime, restates: bool) -> Message:
    return _over(event) if event.edge in ENDS else _down(event, now, restates)


def _down(event: Event, now: datetime, restates: bool) -> Message:
    """A Deployment that is degraded now."""
    where = f"{words.name(event)} in {words.cluster(event)}"
    state, since = words.state(event), f" {words.lasting(event.since, now)}"
    if event.flaps is not None:
        since = f", {words.flaps(event.flaps, words.lasting(event.flaps.since, now))}"
    numbers, _, said = visible(event.message).partition("; ")
    change = _change(event, restates)
    unsettled = _UNSETTLED if state == "Flapping" else ""
    silenced = _SILENCED if event.edge in OPENINGS and event.sequence > 1 else ""
    reason = ", ".join(filter(None, (words.reason(event), numbers)))
    lead = f"{state}{change}: Deployment {where}{since}: {reason}"
    return Message(
        state,
        words.SYMBOLS[state],
        f"{state}: {where}",
        words.sentences(lead, f"{said[:1].upper()}{said[1:]}", _worst(event), unsettled, silenced),
        facts=tuple(_facts(event)),
        why=_why(event),
        command=words.command(event),
        notes=(unsettled, silenced),
        line=f"{state}{change}: {where}{since}",
    )


def _change(event: Event, restates: bool) -> str:
    """What an update is beside what was told before it."""
    if restates or event.edge is not Edge.UPDATED:
        return ""
    return ", worse than before" if event.worsened else " now"


def _over(event: Event) -> Message:
    """A Deployment's incident has ended: the whole story, in the past tense."""
    where, state = f"{words.name(event)} in {words.cluster(event)}", words.state(event)
    window = words.window(event.since, event.at)
    was = "unavailable" if words.nothing_serves(event) else "degraded"
    was = "flapping" if event.flapping else was
    lead, facts = f"{state}: Deployment {where}", event.facts
    now = f"now {counts(facts.available, facts.desired, facts.floor)}" if facts else ""
    if event.edge is Edge.CLOSED:
        ending = words.ending(event)
        how = f" ({ending.removeprefix('was ').removeprefix('is ')})"
        lead = f"{lead} {ending}"
        serves = now and event.resolution is Resolution.PAUSED
        after = f"It was {was} {window}{f', {now}' if serves else ' and had not recovered'}"
    else:
        flapped = " of flapping" if event.flapping else ""
        how = f" after {words.readable(event.at - event.since)}{flapped}"
        lead, after = f"{lead} was {was} {window}", now.capitalize()
    if event.flaps is not None:
        lead += f", {words.flaps(event.flaps, f'since {words.at(event.flaps.since, event.at)}')}"
    news = f"{state}{how}: {where}"
    return Message(
        state,
        words.SYMBOLS[state],
        news,
        words.sentences(lead, after, _worst(event), _reason_was(event)),
        facts=(*_facts(event), Fact("Lasted", window)),
        why=_reason_was(event),
        line=f"{news}, {after[0].lower()}{after[1:]}" if after else news,
    )


def _out_of_sight(event: Event, now: datetime, restates: bool) -> Message:
    """A cluster that cannot be seen now."""
    state, cluster = words.state(event), words.cluster(event)
    since = words.lasting(event.since, now)
    news = f"{state}{_change(event, restates)}: cluster {cluster} {since}"
    return Message(
        state,
        words.SYMBOLS.get(state, "🔌"),
        f"{state}: cluster {cluster}",
        words.sentences(f"{news}: {_why(event)}", _UNSEEN),
        facts=(Fact("Cluster", cluster),),
        why=_why(event),
        command=words.command(event),
        notes=(_UNSEEN,),
        line=news,
    )


def _sight_again(event: Event) -> Message:
    """A cluster's incident has ended: how long we were blind, and what changed meanwhile."""
    blind = timedelta(seconds=event.blind_for) if event.blind_for else event.at - event.since
    window, state = words.window(event.at - blind, event.at), words.state(event)
    changed = _meanwhile(event.meanwhile, named=False)
    ended = "is no longer watched" if state == "Closed" else "is in sight again"
    cluster = words.cluster(event)
    return Message(
        state,
        words.SYMBOLS[state],
        f"{state} after {words.readable(blind)}: cluster {cluster}",
        words.sentences(
            f"{state}: cluster {cluster} {ended}, the watcher was blind {window}",
            f"Meanwhile {_meanwhile(event.meanwhile, named=True)}",
            _REWOUND if event.rewound else "",
            _reason_was(event),
        ),
        facts=(Fact("Cluster", cluster), Fact("Blind", window), Fact("Meanwhile", changed)),
        why=_reason_was(event),
        notes=(_REWOUND,) if event.rewound else (),
        line=f"{state}: cluster {cluster}, blind {window}, meanwhile {changed}",
        lines=tuple(_changed(event)),
    )


def _meanwhile(report: Meanwhile | None, *, named: bool) -> str:
    """`2 degraded and still are: shop/a, shop/b; 1 was deleted: shop/c`, with their names or without."""
    told = []
    for kind, changes in asdict(report).items() if report else ():
        names = words.names([f"{c.namespace}/{c.name}" for c in changes.deployments], changes.count)
        what = f"{changes.count} {words.CHANGES[kind][changes.count > 1]}"
        told += [f"{what}: {names}" if named else what] if changes.count else []
    unchanged = "no Deployment degraded and none was deleted" if report else _UNKNOWN
    return "; ".join(told) or unchanged


def _changed(event: Event) -> Iterator[str]:
    """A line for each that changed out of sight, by kind, and how many more there are."""
    for kind, changes in asdict(event.meanwhile).items() if event.meanwhile else ():
        for change in changes.deployments:
            where = visible(f"{change.namespace}/{change.name}", 400)
            at = f" {words.at(change.at, event.at)}" if change.at else ""
            yield words.changed(where, kind, at, change.reason)
        if more := changes.count - len(changes.deployments):
            yield f"and {more} more {words.CHANGES[kind][more > 1]}"


def _own(event: Event, now: datetime, restates: bool) -> Message:
    """The watcher speaks of itself: a sink that fails or works again, store, queue, a test."""
    state, message = words.state(event), visible(event.message)
    of = words.name(event) if event.subject.name else event.reason.partition(".")[0]
    what = f"the watcher's {of}"
    since, first = f" {words.lasting(event.since, now)}", ""
    if event.reason == "test":
        what, since = "this is how a message arrives", ""
    elif event.edge in ENDS:
        since, message = "", _failed_until(event)
    elif event.subject.name:
        first = f"watcher outbox list --sink {quote(visible(event.subject.name))}"
    elif event.reason == "queue.filling":
        first = "watcher outbox list"
    title = f"{state}: {what}"
    news = f"{state}{_change(event, restates)}: {what}"
    text = words.sentences(f"{news}{since}", message)
    symbol = words.SYMBOLS.get(state, "⚠️")
    return Message(state, symbol, title, text, why=message, command=first, line=news)


def _failed_until(event: Event) -> str:
    """What has become of a sink that failed, of the store, or of the queue."""
    if event.reason == "queue.restored":
        return f"It was filling {words.window(event.since, event.at)} and has room again"
    then = words.ending(event)
    if event.edge is Edge.RECOVERED:
        works = "delivers" if event.subject.name else "takes writes"
        then = f"{works} again, what had to wait is on its way"
    return f"It failed {words.window(event.since, event.at)} and {then}"


def _why(event: Event) -> str:
    """Our words, then the cluster's own, which count for more."""
    between = ": " if event.subject.is_cluster else ", "
    return between.join(filter(None, (words.reason(event), visible(event.message))))


def _reason_was(event: Event) -> str:
    return f"The reason was: {_why(event)}"


def _worst(event: Event) -> str:
    eased = event.was_critical and event.severity is not Severity.CRITICAL
    return "At its worst nothing served" if eased else ""


def _of_a_rollout(event: Event) -> bool:
    return event.reason in words.ROLLOUT and event.edge not in ENDS


def _facts(event: Event) -> Iterable[Fact]:
    yield Fact("Cluster", words.cluster(event))
    yield Fact("Namespace", visible(event.subject.namespace, 100))
    yield Fact("Deployment", visible(event.subject.name, 300))
    worst = Severity.CRITICAL if event.was_critical else event.severity
    eased = ", was critical" if _worst(event) else ""
    yield Fact("Severity", f"was {worst}" if event.edge in ENDS else f"{event.severity}{eased}")
    gone = event.edge is Edge.CLOSED and event.resolution is not Resolution.PAUSED
    if (facts := event.facts) is None or gone:
        return
    as_of = words.at(event.at, event.at)  # a change of numbers alone is not told
    serving = f"{facts.available} of {facts.desired} at {as_of}"
    needed = f", at least {facts.floor} needed" if facts.floor else ""
    yield Fact("Available", f"{serving}{needed}")
    yield Fact("Pods", f"{facts.updated} updated, {facts.ready} ready")
    if facts.old_serving:
        pods = "pod" if facts.old_serving == 1 else "pods"
        yield Fact("Old version", f"still serves with at least {facts.old_serving} {pods}")
    elif _of_a_rollout(event) and facts.revision != 1 and words.nothing_serves(event):
        yield Fact("Old version", "does not serve")
    if facts.revision:
        generation = "" if facts.generation is None else f", generation {facts.generation}"
        yield Fact("Revision", f"{facts.revision}{generation}")
