"""Who is told what, in which parts, and on record why not: design §4, an edge a line."""

from collections.abc import Iterable, Mapping
from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.deployments import ZERO
from watcher.core.delivery import DeliveryState, Part
from watcher.core.digests import Digest
from watcher.core.events import Edge, Incident, Resolution, Transition
from watcher.core.model import Severity, Subject
from watcher.core.phases import Firing
from watcher.core.planning import Audience, Draft, Plan, plan

CHAT = Audience("chat", chat=True, threads=True)
LINES = Audience("lines", chat=True)
HOOK = Audience("hook")
EVERYBODY = (CHAT, LINES, HOOK)
TOLD = {"chat": "", "lines": "", "hook": ""}
CLUSTER = Subject("prod")


def edge(
    kind: Edge,
    number: int = 1,
    told: Mapping[str, str] = {},
    *,
    silenced: bool = False,
    worsened: bool = False,
    subject: Subject | None = None,
    sequence: int = 1,
    severity: Severity = Severity.WARNING,
) -> Draft:
    """One edge of the incident of Deployment number so and so."""
    incident = Incident(
        f"incident-{number}", ZERO, ZERO, "below_minimum", severity, "1 of 3",
        sequence=sequence, told=dict(told),
    )  # fmt: skip
    resolution = Resolution.DELETED if kind is Edge.CLOSED else None
    transition = Transition(kind, ZERO, incident, resolution, worsened)
    return Draft(
        subject or Subject("prod", "shop", f"web-{number}", f"u{number}"),
        Firing(incident),
        transition=transition,
        silenced=silenced,
    )


def planned(
    *edges: Draft,
    audiences: Iterable[Audience] = EVERYBODY,
    digests: Iterable[Digest] = (),
    storm: bool = False,
    at: float = 0,
) -> Plan:
    now = ZERO + timedelta(seconds=at)
    known = {d.id: d for d in digests}
    return plan(edges, audiences, now, digests=known, storm=storm, cluster="prod")


def rows(found: Plan, incident: str | None = None) -> list[str]:
    """`chat: post` for what is to be sent; `chat: suppressed silenced` for what is not."""
    return [
        f"{d.sink}: {d.part}"
        if d.state is DeliveryState.PENDING
        else f"{d.sink}: {d.state} {d.reason}"
        for d in found.deliveries
        if incident in (None, d.incident)
    ]


EDGES: dict[str, tuple[Draft, list[str]]] = {
    "degraded": (edge(Edge.DEGRADED), ["chat: post", "lines: post", "hook: event"]),
    "flapping": (edge(Edge.FLAPPING), ["chat: post", "lines: post", "hook: event"]),
    "updated, worse": (
        edge(Edge.UPDATED, told=TOLD, worsened=True),
        ["chat: edit", "chat: reply", "lines: post", "hook: event"],
    ),
    "updated, not worse": (
        edge(Edge.UPDATED, told=TOLD),
        ["chat: edit", "chat: reply", "lines: suppressed not_worsened", "hook: event"],
    ),
    "recovered": (
        edge(Edge.RECOVERED, told=TOLD),
        ["chat: edit", "chat: reply", "lines: post", "hook: event"],
    ),
    "closed": (
        edge(Edge.CLOSED, told=TOLD),
        ["chat: edit", "chat: reply", "lines: post", "hook: event"],
    ),
    "told to one only": (
        edge(Edge.RECOVERED, told={"hook": ""}),
        ["chat: suppressed never_told", "lines: suppressed never_told", "hook: event"],
    ),
    "told to nobody": (
        edge(Edge.CLOSED),
        ["chat: suppressed never_told", "lines: suppressed never_told",
         "hook: suppressed never_told"],
    ),
    "worse, told to nobody": (
        edge(Edge.UPDATED, worsened=True),
        ["chat: suppressed never_told", "lines: suppressed never_told",
         "hook: suppressed never_told"],
    ),
    "opening again for who missed it": (
        edge(Edge.DEGRADED, told={"hook": ""}),
        ["chat: post", "lines: post", "hook: event"],
    ),
    "degraded, silenced": (
        edge(Edge.DEGRADED, silenced=True),
        ["chat: suppressed silenced", "lines: suppressed silenced", "hook: suppressed silenced"],
    ),
    "worse, silenced": (
        edge(Edge.UPDATED, told=TOLD, worsened=True, silenced=True),
        ["chat: suppressed silenced", "lines: suppressed silenced", "hook: suppressed silenced"],
    ),
    "recovered, silenced": (
        edge(Edge.RECOVERED, told=TOLD, silenced=True),
        ["chat: edit", "chat: reply", "lines: post", "hook: event"],
    ),
    "closed, silenced": (
        edge(Edge.CLOSED, told=TOLD, silenced=True),
        ["chat: edit", "chat: reply", "lines: post", "hook: event"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("what", "expected"), EDGES.values(), ids=EDGES.keys())
def test_parts(what, expected):
    """Each sink is told in its own parts, and what is not sent has a reason."""
    assert rows(planned(what)) == expected


@pytest.mark.parametrize("silenced", [False, True])
def test_told(silenced):
    """Who was told an opening is kept with the incident; silenced, that is nobody."""
    (incident,) = planned(edge(Edge.DEGRADED, silenced=silenced)).incidents
    assert incident.told == ({} if silenced else TOLD)


@pytest.mark.parametrize("in_storm", [False, True])
def test_a_sink_that_the_route_does_not_reach(in_storm):
    """It hears of no opening, and why is on record; what it was told before goes on in its parts."""
    elsewhere = [replace(each, routed=each.name != "chat") for each in EVERYBODY]
    opened = planned(edge(Edge.DEGRADED), audiences=elsewhere, storm=in_storm)
    assert rows(opened, "incident-1")[0] == "chat: suppressed no_route"
    assert "chat" not in {digest.sink for digest in opened.digests}
    heard = planned(edge(Edge.RECOVERED, told=TOLD), audiences=elsewhere, storm=in_storm)
    assert rows(heard)[:2] == ["chat: edit", "chat: reply"]


def test_a_sink_that_is_configured_no_more():
    """Its row is kept, parked, and it never was in the way of an opening."""
    told = {**TOLD, "old": ""}
    assert rows(planned(edge(Edge.RECOVERED, told=told)))[-1] == "old: parked sink_removed"
    assert len(rows(planned(edge(Edge.DEGRADED)))) == 3


def test_ids():
    """Ids say which event and which part, and come out the same when planned again."""
    first, second = (planned(edge(Edge.UPDATED, told=TOLD, sequence=12)) for _ in range(2))
    assert [e.id for e in first.events] == ["incident-1-0000000012"]
    ids = [d.id for d in first.deliveries]
    assert len(set(ids)) == 4
    assert ids == [d.id for d in second.deliveries]


def test_no_storm():
    """As long as it is no storm, each opening is a message."""
    found = planned(edge(Edge.DEGRADED, 1), edge(Edge.DEGRADED, 2))
    assert not found.digests
    assert rows(found) == 2 * ["chat: post", "lines: post", "hook: event"]


def storm(count: int = 11) -> Plan:
    return planned(*(edge(Edge.DEGRADED, n) for n in range(count)), storm=True)


def of(found: Plan, sink: str) -> Digest:
    (digest,) = (d for d in found.digests if d.sink == sink)
    return digest


def test_storm():
    """In a storm each chat sink gets one message with every name in it, and the hook each event."""
    found = storm()
    assert rows(found, "incident-3") == [
        "chat: grouped storm",
        "lines: grouped storm",
        "hook: event",
    ]
    chat, lines = of(found, "chat"), of(found, "lines")
    assert rows(found, chat.id) == ["chat: post", "chat: reply"]
    assert rows(found, lines.id) == ["lines: post"]
    members = tuple(f"incident-{n}" for n in range(11))
    told = [
        (e.members, e.edge, e.digest) for e in found.events if e.incident in (chat.id, lines.id)
    ]
    assert told == 2 * [(members, Edge.DEGRADED, True)]
    assert chat.open == lines.open == 11
    assert {tuple(i.told.items()) for i in found.incidents} == {
        (("chat", chat.id), ("lines", lines.id), ("hook", ""))
    }


def test_storm_silenced():
    """What is silenced is in no digest."""
    quiet = edge(Edge.DEGRADED, 99, silenced=True)
    found = planned(quiet, *(edge(Edge.DEGRADED, n) for n in range(11)), storm=True)
    assert of(found, "chat").open == 11
    assert rows(found, "incident-99")[0] == "chat: suppressed silenced"


def test_clusters_are_never_grouped():
    """A cluster's own edge is its own message, storm or not."""
    found = planned(edge(Edge.DEGRADED, 1, subject=CLUSTER), *storm_edges(), storm=True)
    assert rows(found, "incident-1") == ["chat: post", "lines: post", "hook: event"]
    assert found.incidents[0].told == TOLD
    again = planned(edge(Edge.DEGRADED, 1, subject=CLUSTER), digests=found.digests)
    assert rows(again) == ["chat: post", "lines: post", "hook: event"]


def storm_edges() -> list[Draft]:
    return [edge(Edge.DEGRADED, n) for n in range(20, 31)]


@pytest.mark.parametrize(("at", "joins"), [(30, True), (59, True), (61, False)])
def test_late_openings(at, joins):
    """While a digest is young, later openings join it instead of posting on their own."""
    first = storm()
    found = planned(edge(Edge.DEGRADED, 50), digests=first.digests, at=at)
    chat = of(first, "chat")
    if joins:
        assert rows(found, "incident-50")[0] == "chat: grouped storm"
        assert rows(found, chat.id) == ["chat: edit", "chat: reply"]
        assert of(found, "chat").open == 12
        assert found.incidents[0].told["chat"] == chat.id
    else:
        assert rows(found, "incident-50")[0] == "chat: post"
        assert not found.digests


def test_members_end_through_their_digest():
    """Every end is accounted for in the digest that told the opening; the last one ends it."""
    first = storm()
    told = first.incidents[0].told
    some = planned(
        *(edge(Edge.RECOVERED, n, told) for n in range(10)), digests=first.digests, at=900
    )
    chat = of(some, "chat")
    assert rows(some, "incident-0") == [
        "chat: grouped storm",
        "lines: grouped storm",
        "hook: event",
    ]
    assert rows(some, chat.id) == ["chat: edit", "chat: reply"]
    assert chat.open == 1
    last = planned(edge(Edge.CLOSED, 10, told), digests=some.digests, at=990)
    ends = [e for e in last.events if e.digest]
    assert [(e.edge, e.members, e.sequence) for e in ends] == 2 * [
        (Edge.RECOVERED, ("incident-10",), 3)
    ]
    assert of(last, "chat").open == 0
    assert rows(last, chat.id) == ["chat: edit", "chat: reply"]
    assert rows(last, of(last, "lines").id) == ["lines: post"]


def test_digest_is_as_bad_as_its_worst():
    """One member with nothing serving makes the digest critical."""
    worst = edge(Edge.DEGRADED, 30, severity=Severity.CRITICAL)
    mild = [edge(Edge.DEGRADED, n) for n in range(11)]
    assert of(planned(*mild, storm=True), "chat").incident.severity is Severity.WARNING
    assert of(planned(*mild, worst, storm=True), "chat").incident.severity is Severity.CRITICAL


def critical(number: int, kind: Edge = Edge.DEGRADED, told: Mapping[str, str] = {}) -> Draft:
    """One with nothing serving; an update is one that got worse."""
    worsened = kind is Edge.UPDATED
    return edge(kind, number, told, worsened=worsened, severity=Severity.CRITICAL)


def called(found: Plan) -> list[bool]:
    return [e.worsened for e in found.events if e.digest]


@pytest.mark.parametrize("joins", [True, False], ids=["joins late", "gets worse"])
def test_what_turns_critical_in_a_digest_calls_the_channel(joins):
    """At once, though edits and replies alone notify nobody; then not again for five minutes."""
    first = storm()
    told = first.incidents[0].told

    def worse(number: int, before: Plan, at: float) -> Plan:
        joiner, member = critical(50 + number), critical(number, Edge.UPDATED, told)
        kept = replace(of(before, "chat"), joins_until=ZERO + timedelta(hours=1))
        lines = replace(of(before, "lines"), joins_until=ZERO + timedelta(hours=1))
        return planned(joiner if joins else member, digests=[kept, lines], at=at)

    found = worse(1, first, 30)
    assert called(found) == [True, True]
    assert {d.due - ZERO for d in found.deliveries if d.part is Part.REPLY} == {
        timedelta(seconds=32)
    }
    again = worse(2, found, 60)
    assert called(again) == [False, False]
    restored = [
        Digest.restore(digest.subject, digest.phase, digest.open) for digest in again.digests
    ]
    assert restored == list(again.digests)
    assert called(worse(3, again, 331)) == [True, True]


def test_a_storm_that_begins_critical_has_called_with_its_post():
    """The post itself notifies; another critical one a moment later adds nothing to it."""
    first = planned(*(critical(n) for n in range(11)), storm=True)
    assert called(first) == [False, False]
    assert called(planned(critical(50), digests=first.digests, at=30)) == [False, False]


def test_a_removed_sink_that_was_in_a_digest():
    """Its digest's row is kept instead of one for each member, and comes when the sink is back."""
    first = storm()
    told = first.incidents[0].told
    ends = [edge(Edge.RECOVERED, n, told) for n in range(11)]
    found = planned(*ends, audiences=[HOOK], digests=first.digests, at=900)
    kept = [d for d in found.deliveries if d.state is DeliveryState.PARKED]
    assert {(d.sink, d.part, d.reason, d.incident) for d in kept} == {
        ("chat", Part.POST, "sink_removed", of(first, "chat").id),
        ("lines", Part.POST, "sink_removed", of(first, "lines").id),
    }


def test_sudden_openings_wait_for_a_storm():
    """The first goes out at once; more that nobody saw coming wait two seconds, for people only."""

    def due(found: Plan, sink: str) -> list[float]:
        return [(d.due - ZERO).total_seconds() for d in found.deliveries if d.sink == sink]

    several = [replace(edge(Edge.DEGRADED, n), sudden=True) for n in range(3)]
    found = planned(*several)
    assert (due(found, "chat"), due(found, "hook")) == ([0, 2, 2], [0, 0, 0])
    late = plan(several[:1], EVERYBODY, ZERO, digests={}, storm=False, cluster="prod", calm=False)
    assert (due(late, "chat"), due(late, "hook")) == ([2], [0])


def test_held_openings_join_the_storm():
    """Those whose post still waits are told by the digest, and their incidents know it."""
    early = planned(edge(Edge.DEGRADED, 1))
    found = plan(
        storm_edges(), EVERYBODY, ZERO, digests={}, storm=True, cluster="prod",
        held=[(early.events[0], early.incidents[0])],
    )  # fmt: skip
    chat = of(found, "chat")
    assert chat.open == 12
    assert rows(found, "incident-1") == ["chat: grouped storm", "lines: grouped storm"]
    assert found.incidents[0].told == {"chat": chat.id, "lines": of(found, "lines").id, "hook": ""}
    assert found.deliveries[0].id == early.deliveries[0].id, "the row that waits becomes grouped"
