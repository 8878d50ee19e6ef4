"""Many incidents in one message: how many, which, and how each of them stands."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

from watcher.core import words
from watcher.core.delivery import Part
from watcher.core.events import ENDS, OPENINGS, Edge, Event
from watcher.core.message import Fact, Message, visible

_OLDER: Final = "Only what is new is named here, earlier messages name the rest"


def digest(event: Event, members: Sequence[Event], part: Part, news: Sequence[Event]) -> Message:
    """Many incidents in one message: all of them, or after a first one those that `news` tells of."""
    listed = members = sorted(members, key=_urgency)
    whole = part is Part.EDIT or (part is Part.POST and any(e.edge in OPENINGS for e in news))
    if not whole:
        named = {incident for each in news for incident in each.members}
        listed = [member for member in members if member.incident in named]
    older = len(members) > len(listed)
    over = bool(members) and all(member.edge in ENDS for member in members)
    many = f"{len(members)} Deployment{'' if len(members) == 1 else 's'}"
    title = f"{many} {'were ' if over else ''}degraded in {words.cluster(event)}"
    if {_kind(member) for member in members} != {"degraded"}:
        title = f"{title}: {_standing(members)}"
    state = "Recovered" if over else "Degraded"
    lasted = words.window(event.since, event.at) if over else ""
    when = f"It lasted {lasted}" if over else f"It began at {words.at(event.since, event.at)}"
    total = any(m.edge not in ENDS and words.nothing_serves(m) for m in members)
    return Message(
        state,
        words.SYMBOLS["Unavailable" if total else state],
        title,
        words.sentences(title, when, _OLDER if older else "", *_by_standing(listed)),
        facts=(
            Fact("Cluster", words.cluster(event)),
            Fact("Deployments", _standing(members)),
            Fact("By namespace", _tally(member.subject.namespace for member in members)),
            Fact("By reason", _tally(words.reason(member) for member in members)),
            *((Fact("Lasted", lasted),) if over else ()),
        ),
        command="" if over else "kubectl get events --all-namespaces --field-selector type=Warning",
        notes=(_OLDER,) if older else (),
        line=title,
        lines=tuple(_member(member, event.at) for member in listed),
        briefly=tuple((f"{_stands(m)} in {m.subject.namespace}", m.subject.name) for m in listed),
    )


def _urgency(member: Event) -> tuple[int, str, str]:
    """What is down first, then what was closed, then what has recovered; each kind together."""
    edge, total = member.edge, words.nothing_serves(member)
    rank = 3 if edge is Edge.RECOVERED else 2 if edge in ENDS else 0 if total else 1
    return rank, _stands(member), str(member.subject)


def _stands(member: Event) -> str:
    """`Unavailable`, `Recovered`, `Closed (was deleted)`."""
    how = f" ({words.ending(member)})" if member.edge is Edge.CLOSED else ""
    return f"{words.state(member)}{how}"


def _by_standing(members: Sequence[Event]) -> Iterator[str]:
    """`Unavailable: shop/a, shop/b`, then `Recovered: shop/c and 40 more`."""
    for state, group in groupby(members, _stands):
        names = [str(member.subject) for member in group]
        yield f"{state}: {words.names(names, len(names))}"


def _standing(members: Iterable[Event]) -> str:
    """`2 unavailable, 10 degraded, 45 recovered, 3 closed`."""
    counted = Counter(map(_kind, members))
    kinds = ("unavailable", "degraded", "recovered", "closed")
    return ", ".join(f"{counted[kind]} {kind}" for kind in kinds if counted[kind])


def _kind(member: Event) -> str:
    if member.edge in ENDS:
        return member.edge.value
    return "unavailable" if words.nothing_serves(member) else "degraded"


def _tally(values: Iterable[str]) -> str:
    """`shop 40, payments 12, 5 others 8`: the most frequent first."""
    counted = Counter(visible(value, 100) for value in values).most_common()
    shown = [f"{value} {count}" for value, count in counted[:5]]
    rest = [f"{len(counted) - 5} others {sum(n for _, n in counted[5:])}"] if counted[5:] else []
    return ", ".join(shown + rest)


def _member(event: Event, today: datetime) -> str:
    """`shop/checkout: Unavailable since 14:02 UTC, 0 of 3 replicas available`."""
    where, state = words.name(event), words.state(event)
    if event.edge in ENDS:
        ending = f", {words.ending(event)}" if event.edge is Edge.CLOSED else ""
        return f"{where}: {state} after {words.readable(event.at - event.since)}{ending}"
    what = visible(event.message, 120).partition("; ")[0] or words.reason(event)
    return f"{where}: {state} since {words.at(event.since, today)}, {what}"
