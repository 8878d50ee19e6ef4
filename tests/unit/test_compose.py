"""What a person reads is complete, current and true."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.events import ALL, BEGAN, STALLED, event, outage
from watcher.core.compose import compose, short_id
from watcher.core.delivery import Part
from watcher.core.events import Change, Changes, Edge, Event, Facts, Flaps, Meanwhile, Resolution
from watcher.core.message import Fact, Message, visible
from watcher.core.model import Severity, Subject
from watcher.core.words import readable, trouble

END = {Edge.RECOVERED, Edge.CLOSED}


def say(told: Event, part: Part = Part.EVENT, seconds: float = 5, **kwargs: Any) -> Message:  # noqa: ANN401
    kwargs.setdefault("latest", told)
    return compose(told, part=part, now=told.at + timedelta(seconds=seconds), **kwargs)


DOWN = event(Edge.DEGRADED)
WORSE = event(Edge.UPDATED, 5, 2, worsened=True)
UP = event(Edge.RECOVERED, 12, 3)
FLAPS = Flaps(6, BEGAN - timedelta(minutes=10), timedelta(minutes=8))
SCALED = event(Edge.CLOSED, 15, 3, resolution=Resolution.SCALED_TO_ZERO)
FAILING = event(
    Edge.DEGRADED, subject=Subject("", name="oncall"), reason="sink.failing", message="invalid_auth"
)


@pytest.mark.parametrize(
    ("told", "part", "text"),
    [
        pytest.param(
            DOWN,
            Part.POST,
            "Unavailable: Deployment shop/checkout in prod-eu since 14:02 UTC (35 s): nothing serves,"
            " 0 of 3 replicas available, 2 needed."
            " Start with: kubectl -n shop describe deploy/checkout",
            id="nothing serves",
        ),
        pytest.param(
            event(Edge.DEGRADED, **STALLED),
            Part.POST,
            "Degraded: Deployment shop/checkout in prod-eu since 14:02 UTC (35 s): the rollout has"
            " stalled, 2 of 3 replicas available, the old version still serves with at least 2."
            ' ProgressDeadlineExceeded: ReplicaSet "checkout-7d9f" has timed out progressing.'
            " Start with: kubectl -n shop rollout status deploy/checkout --watch=false",
            id="rollout stalled",
        ),
        pytest.param(
            WORSE,
            Part.REPLY,
            "Unavailable, worse than before: Deployment shop/checkout in prod-eu since 14:02 UTC"
            " (5 min): nothing serves, 0 of 3 replicas available, 2 needed."
            " Start with: kubectl -n shop describe deploy/checkout",
            id="worse",
        ),
        pytest.param(
            UP,
            Part.REPLY,
            "Recovered: Deployment shop/checkout in prod-eu was unavailable 14:02\N{EN DASH}14:14 UTC (12 min)."
            " Now 3 of 3 replicas available."
            " The reason was: nothing serves, 0 of 3 replicas available, 2 needed.",
            id="recovered",
        ),
        pytest.param(
            SCALED,
            Part.REPLY,
            "Closed: Deployment shop/checkout in prod-eu was scaled to zero. It was unavailable"
            " 14:02\N{EN DASH}14:17 UTC (15 min) and had not recovered."
            " The reason was: nothing serves, 0 of 3 replicas available, 2 needed.",
            id="closed",
        ),
        pytest.param(
            event(Edge.CLOSED, 15, 4, resolution=Resolution.DELETED, still_there=True),
            Part.REPLY,
            "Closed: Deployment shop/checkout in prod-eu is being deleted. It was unavailable"
            " 14:02\N{EN DASH}14:17 UTC (15 min) and had not recovered."
            " The reason was: nothing serves, 0 of 3 replicas available, 2 needed.",
            id="deletion that hangs",
        ),
        pytest.param(
            event(Edge.FLAPPING, 10, flapping=True),
            Part.POST,
            "Flapping: Deployment shop/checkout in prod-eu since 14:02 UTC (10 min): nothing serves,"
            " 0 of 3 replicas available, 2 needed."
            " It keeps failing and recovering; no further message until it settles."
            " Start with: kubectl -n shop describe deploy/checkout",
            id="flapping",
        ),
        pytest.param(
            event(Edge.FLAPPING, 10, flapping=True, flaps=FLAPS),
            Part.POST,
            "Flapping: Deployment shop/checkout in prod-eu, degraded 6 times since 13:52 UTC (20 min),"
            " for 8 min in all: nothing serves, 0 of 3 replicas available, 2 needed."
            " It keeps failing and recovering; no further message until it settles."
            " Start with: kubectl -n shop describe deploy/checkout",
            id="flapping under its hold",
        ),
        pytest.param(
            event(Edge.FLAPPING, 10, flapping=True, flaps=replace(FLAPS, lasted=timedelta(0))),
            Part.POST,
            "Flapping: Deployment shop/checkout in prod-eu, degraded 6 times since 13:52 UTC (20 min):"
            " nothing serves, 0 of 3 replicas available, 2 needed."
            " It keeps failing and recovering; no further message until it settles."
            " Start with: kubectl -n shop describe deploy/checkout",
            id="flapping, and never below its floor",
        ),
        pytest.param(
            outage(Edge.DEGRADED),
            Part.POST,
            "Unreachable: cluster prod-eu since 14:02 UTC (1 min): the API server does not answer:"
            " connection refused."
            " Deployments that cannot be seen are not judged until it is back: silence is not health."
            " Start with: kubectl get --raw='/readyz?verbose'",
            id="unreachable",
        ),
        pytest.param(
            outage(Edge.RECOVERED, 9, blind_for=480.0),
            Part.REPLY,
            "Restored: cluster prod-eu is in sight again, the watcher was blind 14:03\N{EN DASH}14:11 UTC (8 min)."
            " Meanwhile what changed is not known in full."
            " The reason was: the API server does not answer: connection refused.",
            id="restored",
        ),
        pytest.param(
            FAILING,
            Part.POST,
            "Failing: the watcher's sink oncall since 14:02 UTC (35 s). invalid_auth."
            " Start with: watcher outbox list --sink oncall",
            id="a sink fails",
        ),
        pytest.param(
            replace(FAILING, edge=Edge.UPDATED, worsened=True),
            Part.EVENT,
            "Failing, worse than before: the watcher's sink oncall since 14:02 UTC (30 s)."
            " invalid_auth. Start with: watcher outbox list --sink oncall",
            id="it has lost something",
        ),
        pytest.param(
            replace(
                FAILING,
                edge=Edge.CLOSED,
                reason="sink.restored",
                resolution=Resolution.NOT_WATCHED,
            ),
            Part.EVENT,
            "Closed: the watcher's sink oncall."
            " It failed 14:02:00\N{EN DASH}14:02:30 UTC (30 s) and is no longer watched.",
            id="a sink is configured no more",
        ),
        pytest.param(
            replace(FAILING, edge=Edge.RECOVERED, reason="store.restored", subject=Subject("")),
            Part.POST,
            "Restored: the watcher's store. It failed 14:02:00\N{EN DASH}14:02:30 UTC (30 s)"
            " and takes writes again, what had to wait is on its way.",
            id="the store works again",
        ),
        pytest.param(
            outage(Edge.UPDATED, 6, reason="unauthorized", message="HTTP 401"),
            Part.EVENT,
            "Unauthorized now: cluster prod-eu since 14:02 UTC (6 min):"
            " the API server does not let the watcher read: HTTP 401."
            " Deployments that cannot be seen are not judged until it is back: silence is not health."
            " Start with: watcher check",
            id="out of sight for another reason",
        ),
    ],
)
def test_text_tells_the_whole_story(told: Event, part: Part, text: str) -> None:
    """The text alone says what, where, since when, why, and what to run first."""
    assert say(told, part).text == text


@pytest.mark.parametrize(
    ("told", "title"),
    [
        pytest.param(DOWN, "Unavailable: shop/checkout in prod-eu", id="unavailable"),
        pytest.param(event(Edge.DEGRADED, **STALLED), "Degraded: shop/checkout in prod-eu", id="degraded"),
        pytest.param(UP, "Recovered after 12 min: shop/checkout in prod-eu", id="recovered"),
        pytest.param(SCALED, "Closed (scaled to zero): shop/checkout in prod-eu", id="closed"),
        pytest.param(
            replace(SCALED, resolution=Resolution.LEFT_SCOPE),
            "Closed (no longer shows up under the watcher's label selector): shop/checkout in prod-eu",
            id="not selected",
        ),
        pytest.param(replace(SCALED, resolution=Resolution.IGNORED), "Closed (ignored from now on): shop/checkout in prod-eu", id="ignored"),
        pytest.param(outage(Edge.DEGRADED, reason="view_stale"), "View stale: cluster prod-eu", id="stale"),
        pytest.param(outage(Edge.RECOVERED, 9), "Restored after 9 min: cluster prod-eu", id="restored"),
    ],
)  # fmt: skip
def test_the_state_comes_first(told: Event, title: str) -> None:
    """A phone shows forty characters of a title: the state and the name."""
    assert say(told, Part.POST).title == title


@pytest.mark.parametrize(
    "told", [DOWN, WORSE, UP, SCALED, outage(Edge.DEGRADED)], ids=lambda e: e.type
)
def test_a_lock_screen_is_enough(told: Event) -> None:
    """The first 150 characters name state, object and cluster, and how long it has been so."""
    start = say(told, Part.POST, seconds=7500).text[:150]
    assert start.startswith(say(told, Part.POST).state)
    assert str(told.subject) in start
    assert "prod-eu" in start
    assert "14:02" in start
    assert told.edge in END or "2 h" in start


def test_a_post_restates_what_is_current() -> None:
    """Whoever opens the channel late reads how things are now, not how they began."""
    assert say(DOWN, Part.POST, latest=UP).state == "Recovered"
    assert say(DOWN, Part.REPLY, latest=UP).state == "Unavailable"


def test_an_outage_nobody_was_told_of_is_one_story_in_the_past_tense() -> None:
    """An opening and its end that could not be sent become one message that says so."""
    opening = event(Edge.DEGRADED, **STALLED)
    end = event(Edge.RECOVERED, 7, 2, **(STALLED | {"facts": ALL}))
    message = say(end, Part.POST, covers=(opening, end), late_reason="connection refused")
    assert "was degraded 14:02\N{EN DASH}14:09 UTC (7 min)" in message.text
    assert "Sent late, nobody was told while it lasted: connection refused." in message.text
    assert "Start with" not in message.text


@pytest.mark.parametrize(
    ("changes", "was", "severity"),
    [
        pytest.param({}, "was unavailable", "was critical", id="total to the end"),
        pytest.param(STALLED, "was degraded", "was warning", id="never total"),
        pytest.param(
            STALLED | {"severity": Severity.CRITICAL}, "was unavailable", "was critical",
            id="total, whatever the reason",
        ),
        pytest.param(
            STALLED | {"was_critical": True}, "was degraded", "was critical", id="eased before"
        ),
    ],
)  # fmt: skip
def test_an_end_says_how_bad_it_was(changes: dict[str, Any], was: str, severity: str) -> None:
    """Unavailable is said of a whole outage only if nothing served when it ended; else its worst is."""
    message = say(event(Edge.RECOVERED, 7, 3, **(changes | {"facts": ALL})), Part.POST)
    assert f"{was} 14:02\N{EN DASH}14:09 UTC (7 min)" in message.text
    assert ("At its worst nothing served." in message.text) is ("was_critical" in changes)
    assert {f.label: f.value for f in message.facts}["Severity"] == severity


def test_what_flapped_was_not_down_all_the_time() -> None:
    """The end of a flapping incident, which is healthy for most of it, claims no such outage."""
    end = say(event(Edge.RECOVERED, 30, 2, flapping=True), Part.REPLY)
    assert end.title == "Recovered after 30 min of flapping: shop/checkout in prod-eu"
    assert "was flapping 14:02\N{EN DASH}14:32 UTC (30 min). Now 3 of 3 replicas" in end.text
    end = say(event(Edge.RECOVERED, 30, 2, flapping=True, flaps=FLAPS), Part.REPLY)
    assert (
        "was flapping 14:02\N{EN DASH}14:32 UTC (30 min), degraded 6 times since 13:52 UTC, for 8 min"
        " in all. Now 3 of 3 replicas"
    ) in end.text


def test_what_flaps_is_dated_by_its_first_time() -> None:
    """The line, the date that Slack shows in the reader's zone, and the sentence say the same."""
    message = say(event(Edge.FLAPPING, 10, flapping=True, flaps=FLAPS), Part.POST)
    assert message.line.endswith(
        "Flapping: shop/checkout in prod-eu, degraded 6 times since 13:52 UTC (20 min), for 8 min in all"
    )
    assert message.since == FLAPS.since
    assert message.title == "Flapping: shop/checkout in prod-eu"


@pytest.mark.parametrize(
    ("how", "after", "numbers"),
    [
        (Resolution.PAUSED, "(15 min), now 3 of 3 replicas available.", True),
        (Resolution.DELETED, "(15 min) and had not recovered.", False),
        (Resolution.SCALED_TO_ZERO, "(15 min) and had not recovered.", False),
    ],
)
def test_an_end_without_recovery_shows_no_numbers_of_before(
    how: Resolution, after: str, numbers: bool
) -> None:
    """What is gone has no replicas to show; what was paused is shown as it serves now."""
    message = say(event(Edge.CLOSED, 15, 3, resolution=how, facts=ALL), Part.EDIT)
    assert after in message.text
    assert ("Available" in {fact.label for fact in message.facts}) is numbers


def test_a_single_replica_is_one() -> None:
    """One replica is not spoken of as several."""
    one = Facts(desired=1, floor=1, updated=1, ready=1, available=1)
    assert "Now 1 of 1 replica available." in say(replace(UP, facts=one), Part.REPLY).text


def test_what_the_cluster_says_is_a_sentence() -> None:
    """What follows a full stop begins with a capital."""
    paused = "1 of 3 replicas available, 2 needed; its rollout is paused"
    text = say(event(Edge.DEGRADED, reason="below_minimum", message=paused), Part.POST).text
    assert "2 needed. Its rollout is paused. Start" in text


def test_numbers_of_a_card_carry_their_time() -> None:
    """A card is edited only with news: its numbers say of when they are, and no duration stands."""
    message = say(DOWN, Part.POST, seconds=3600)
    facts = {fact.label: fact.value for fact in message.facts}
    assert facts["Available"] == "0 of 3 at 14:02 UTC, at least 2 needed"
    assert "Lasting" not in facts


def test_what_a_silence_kept_quiet_says_so() -> None:
    """Whoever is told late, as a silence ends, learns why not sooner."""
    told = event(Edge.DEGRADED, 9, 2)
    assert "A silence has kept this quiet until now." in say(told, Part.POST).text
    assert "silence" not in say(DOWN, Part.POST).text


def test_old_news_in_a_thread_is_told_as_of_its_time() -> None:
    """A reply that is sent late dates its numbers, says so where it is read, and what is true by now."""
    eased = event(Edge.UPDATED, 8, 3, was_critical=True, **STALLED)
    late = {"late": timedelta(minutes=6), "late_reason": "connection_refused"}
    message = say(WORSE, Part.REPLY, seconds=360, latest=eased, **late)
    assert message.line == (
        "14:07 UTC Unavailable, worse than before: shop/checkout in prod-eu since 14:02 UTC (5 min)."
        " Delayed 6 min: connection refused. By now: Degraded"
    )
    assert "By now: Degraded." in message.text
    assert message.broadcast
    assert not message.calls, "nobody is called for what is over"
    assert say(WORSE, Part.REPLY).calls
    assert "By now" not in say(WORSE, Part.REPLY).text


def test_news_of_another_day_carries_its_date() -> None:
    """What is sent a day late does not read as if it were of today."""
    line = say(UP, Part.REPLY, seconds=86400, late=timedelta(days=1)).line
    assert line.startswith("2026-11-22 14:14 UTC Recovered after 12 min: ")
    assert line.endswith(". Delayed 1 d"), "and no reason where none is known"
    untold = say(UP, Part.POST, covers=(DOWN,), late=timedelta(hours=2), late_reason="http_503")
    assert "Sent 2 h late, nobody was told while it lasted: HTTP 503." in untold.text


def test_old_news_says_that_it_is_old() -> None:
    """A delayed message says by how much and why, in the text and in the small print."""
    message = say(DOWN, Part.POST, late=timedelta(minutes=11), late_reason="connection_refused")
    assert "Delayed 11 min: connection refused." in message.text
    assert "Delayed 11 min: connection refused" in message.notes


@pytest.mark.parametrize(
    ("told", "part", "broadcast"),
    [
        pytest.param(WORSE, Part.REPLY, True, id="worsened"),
        pytest.param(event(Edge.UPDATED, 5, 2), Part.REPLY, False, id="changed"),
        pytest.param(UP, Part.REPLY, True, id="recovered"),
        pytest.param(SCALED, Part.REPLY, True, id="closed"),
        pytest.param(UP, Part.EDIT, False, id="an edit"),
    ],
)
def test_the_channel_sees_what_matters(told: Event, part: Part, broadcast: bool) -> None:
    """A reply that tells of worse or of the end is shown in the channel: edits notify nobody."""
    assert say(told, part).broadcast is broadcast


@pytest.mark.parametrize(
    ("facts", "state", "old"),
    [
        pytest.param(Facts(3, 2, 1, 2, 2, 2), "Degraded", "still serves with at least 2 pods", id="old serves"),
        pytest.param(Facts(3, 2, 3, 0, 0), "Unavailable", "does not serve", id="nothing serves"),
        pytest.param(Facts(3, 2, 3, 0, 0, revision=1), "Unavailable", None, id="there is no old one"),
        pytest.param(Facts(3, 2, 3, 1, 0), "Degraded", None, id="ready but not yet available"),
    ],
)  # fmt: skip
def test_it_says_whether_the_old_version_serves(facts: Facts, state: str, old: str | None) -> None:
    """In a stalled rollout the question is whether users are served meanwhile."""
    message = say(event(Edge.DEGRADED, **(STALLED | {"facts": facts})), Part.POST)
    assert message.state == state
    assert {f.label: f.value for f in message.facts}.get("Old version") == old


def test_a_severity_that_was_set_by_hand_does_not_bend_the_facts() -> None:
    """An annotation makes an incident critical; it is called Unavailable only if nothing serves."""
    told = event(Edge.DEGRADED, **(STALLED | {"severity": Severity.CRITICAL}))
    assert say(told, Part.POST).state == "Degraded"


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("below_minimum", "kubectl -n shop describe deploy/checkout"),
        ("no_progress", "kubectl -n shop rollout status deploy/checkout --watch=false"),
        ("pods_not_created", "kubectl -n shop get events --field-selector reason=FailedCreate"),
        ("a_reason_of_later", "kubectl -n shop describe deploy/checkout"),
    ],
)
def test_the_first_command_fits_the_reason(reason: str, command: str) -> None:
    """What to run first can be pasted as it stands."""
    message = say(event(Edge.DEGRADED, reason=reason), Part.POST)
    assert message.command == command
    assert message.text.endswith(command)


def test_a_name_cannot_break_out_of_the_command() -> None:
    """Whatever a name holds, the shell takes it as a name."""
    told = event(Edge.DEGRADED, subject=Subject("c", "shop", "x; rm -rf ~"))
    assert say(told, Part.POST).command == "kubectl -n shop describe deploy/'x; rm -rf ~'"


MEANWHILE = Meanwhile(
    degraded=Changes(
        2,
        (
            Change("shop", "a", "none_available", BEGAN + timedelta(minutes=3)),
            Change("shop", "b", "below_minimum"),
        ),
    ),
    returned=Changes(1, (Change("shop", "c", at=BEGAN + timedelta(minutes=5)),)),
    deleted=Changes(27, tuple(Change("shop", f"x{n}", "recreated") for n in range(25))),
)


def members(count: int, **ended: Edge) -> list[Event]:
    """Incidents m0, m1, … of which some have ended: `m3=Edge.CLOSED`."""
    rows = []
    for number in range(count):
        edge = ended.get(f"m{number}", Edge.DEGRADED)
        subject = Subject("prod-eu", "shop" if number % 3 else "pay", f"svc-{number}")
        how = Resolution.DELETED if edge is Edge.CLOSED else None
        rows.append(event(edge, 4, incident=f"m{number}", subject=subject, resolution=how))
    return rows


def digest(edge: Edge, *names: str, sequence: int = 1) -> Event:
    subject = Subject("prod-eu", "", "oncall", "digest/oncall/x")
    return event(edge, 5, sequence, subject=subject, digest=True, reason="storm", facts=None,
                 message="", members=names)  # fmt: skip


def test_a_storm_is_one_message_with_its_counts() -> None:
    """Sixty outages are one title, the first names, and how many more there are."""
    rows = members(60, m0=Edge.RECOVERED, m1=Edge.RECOVERED, m2=Edge.CLOSED)
    message = say(digest(Edge.DEGRADED), Part.POST, members=rows)
    assert message.title == (
        "60 Deployments degraded in prod-eu: 57 unavailable, 2 recovered, 1 closed"
    )
    assert message.symbol == "🔴"
    assert "1 closed. It began at 14:02 UTC. Unavailable: pay/svc-12, pay/svc-15, " in message.text
    assert " and 42 more. Closed (was deleted): shop/svc-2. Recovered: pay/svc-0, shop/svc-1." in (
        message.text
    )
    assert {f.label: f.value for f in message.facts}["By namespace"] == "shop 40, pay 20"
    assert len(message.lines) == 60


def test_the_thread_of_a_storm_names_what_is_new() -> None:
    """A reply lists those that joined or ended, each with what became of it, and nobody else."""
    rows = members(4, m1=Edge.RECOVERED, m2=Edge.CLOSED)
    news = digest(Edge.UPDATED, "m1", "m2", sequence=3)
    earlier = digest(Edge.UPDATED, "m0", sequence=2)
    message = say(news, Part.REPLY, covers=(earlier, news), members=rows)
    assert message.lines == (
        "pay/svc-0: Unavailable since 14:02 UTC, 0 of 3 replicas available, 2 needed",
        "shop/svc-2: Closed after 4 min, was deleted",
        "shop/svc-1: Recovered after 4 min",
    )


@pytest.mark.parametrize("part", [Part.REPLY, Part.POST])
def test_a_part_of_a_storm_does_not_pass_for_the_whole(part: Part) -> None:
    """Six recoveries of fifteen, told alone, do not read as the end of a storm of six."""
    rows = members(15, **{f"m{n}": Edge.RECOVERED for n in range(6)})
    rows[14] = replace(rows[14], **STALLED)
    news = digest(Edge.UPDATED, *(f"m{n}" for n in range(6)), sequence=3)
    message = say(news, part, members=rows)
    assert message.title == (
        "15 Deployments degraded in prod-eu: 8 unavailable, 1 degraded, 6 recovered"
    )
    assert (message.state, message.symbol) == ("Degraded", "🔴")
    assert len(message.lines) == 6
    assert "It began at" in message.text


def test_a_storm_that_is_over_says_how_it_ended() -> None:
    """Every end of a storm is accounted for; the last reply sums up and names the last ones."""
    rows = members(3, m0=Edge.RECOVERED, m1=Edge.RECOVERED, m2=Edge.CLOSED)
    end = digest(Edge.RECOVERED, "m2", sequence=4)
    for part in (Part.EDIT, Part.REPLY):
        message = say(end, part, members=rows, covers=(end,))
        assert message.state == "Recovered"
        assert message.title == "3 Deployments were degraded in prod-eu: 2 recovered, 1 closed"
        assert len(message.lines) == (3 if part is Part.EDIT else 1)
        assert message.broadcast is (part is Part.REPLY)


def test_where_nothing_can_be_edited_a_grown_storm_tells_what_is_new() -> None:
    """A later post has the counts of all and the names of those that joined or ended since."""
    rows = members(30, m0=Edge.RECOVERED, m1=Edge.CLOSED)
    news = digest(Edge.UPDATED, "m0", "m1", "m29", sequence=2)
    message = say(news, Part.POST, members=rows, late=timedelta(minutes=2))
    title = "30 Deployments degraded in prod-eu: 28 unavailable, 1 recovered, 1 closed"
    assert message.title == title
    assert message.text.startswith(
        f"{title}. It began at 14:02 UTC. Only what is new is named here, earlier messages name the rest."
        " Unavailable: shop/svc-29. Closed (was deleted): shop/svc-1. Recovered: pay/svc-0. Start"
    ), "and no word of delay, which is meant"
    assert [line.partition(": ")[0] for line in message.lines] == [
        "shop/svc-29", "shop/svc-1", "pay/svc-0",
    ]  # fmt: skip
    begun = say(news, Part.POST, members=rows, covers=(digest(Edge.DEGRADED), news))
    assert len(begun.lines) == 30, "nobody has been told any of them"


def test_a_digest_of_one_is_told_like_any_incident() -> None:
    """Where no storm came of it nothing is lost: state, numbers, reason and command are there."""
    (row,) = members(1)
    message = say(digest(Edge.DEGRADED, "m0"), Part.POST, members=[row])
    alone = say(row, Part.POST)
    assert (message.title, message.facts) == (alone.title, alone.facts)
    assert message.why == alone.why
    assert message.command == alone.command == "kubectl -n pay describe deploy/svc-0"
    (over,) = members(1, m0=Edge.RECOVERED)
    end = say(digest(Edge.RECOVERED, "m0", sequence=2), Part.REPLY, members=[over])
    assert end.broadcast
    assert end.title == "Recovered after 4 min: pay/svc-0 in prod-eu"


def test_a_call_in_a_digest_is_not_lost_when_news_follow_it() -> None:
    """A reply that replaces one that was to be broadcast is broadcast instead."""
    rows = members(3)
    worse = replace(digest(Edge.UPDATED, "m0", sequence=2), worsened=True)
    message = say(digest(Edge.UPDATED, "m1", sequence=3), Part.REPLY, members=rows, covers=(worse,))
    assert message.broadcast


def test_sight_restored_names_what_changed_meanwhile() -> None:
    """After a blind time one message says how long it was and what is different now."""
    message = say(outage(Edge.RECOVERED, 9, blind_for=480.0, meanwhile=MEANWHILE), Part.REPLY)
    assert (
        "Meanwhile 2 degraded and still are: shop/a, shop/b; 1 went down and came back: shop/c;"
        " 27 were deleted: shop/x0, shop/x1, shop/x2"
    ) in message.text
    assert "shop/x14 and 12 more. The reason was" in message.text
    assert message.lines[:4] == (
        "shop/a: degraded since 14:05 UTC, nothing serves",
        "shop/b: degraded, too few replicas",
        "shop/c: went down and came back at 14:07 UTC",
        "shop/x0: was deleted and created anew",
    )
    assert message.lines[-1] == "and 2 more were deleted"
    counts = "2 degraded and still are; 1 went down and came back; 27 were deleted"
    assert message.facts[-1] == Fact("Meanwhile", counts)
    assert message.line.endswith(f"(8 min), meanwhile {counts}"), "what a thread and a channel show"


def test_sight_restored_says_that_the_store_is_an_older_copy() -> None:
    """Whoever restored a backup learns that the watcher has noticed, everybody else that somebody did."""
    message = say(outage(Edge.RECOVERED, 9, blind_for=480.0, rewound=True), Part.REPLY)
    words = "The store behind its API server was put back to an older copy"
    assert words in message.text
    assert any(note.startswith(words) for note in message.notes)
    plain = say(outage(Edge.RECOVERED, 9, blind_for=480.0), Part.REPLY)
    assert words not in plain.text


def test_sight_restored_says_that_nothing_happened() -> None:
    """That nothing broke meanwhile is what on-call wants to know first."""
    message = say(outage(Edge.RECOVERED, 9, blind_for=480.0, meanwhile=Meanwhile()), Part.REPLY)
    assert "Meanwhile no Deployment degraded and none was deleted." in message.text
    assert message.line.endswith("meanwhile no Deployment degraded and none was deleted")
    assert message.lines == ()


def test_an_end_does_not_read_as_if_it_lasted() -> None:
    """A card that says Recovered has no line Since: when it was is a fact, from when to when."""
    over = members(2, m0=Edge.RECOVERED, m1=Edge.RECOVERED)
    storm = say(digest(Edge.RECOVERED, "m1", sequence=3), Part.EDIT, members=over)
    for message in (say(UP, Part.EDIT), storm, say(outage(Edge.RECOVERED, 9), Part.EDIT)):
        assert message.since is None
        assert {"Lasted", "Blind"} & {fact.label for fact in message.facts}
    assert "It lasted 14:02\N{EN DASH}14:07 UTC (5 min)." in storm.text
    assert say(DOWN, Part.EDIT).since == BEGAN


def test_what_came_to_light_says_so() -> None:
    """Whoever is told of a Deployment as sight returns learns why not sooner."""
    words = "while the watcher could not see the cluster"
    for told in (event(Edge.DEGRADED, unseen=True), event(Edge.RECOVERED, unseen=True)):
        assert words in say(told, Part.POST).text
        assert words in " ".join(say(told, Part.EDIT).notes)
    assert words not in say(DOWN, Part.POST).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (720, "12 min"), (3600, "1 h"),
        (7500, "2 h 5 min"), (86400, "1 d"), (86400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations_are_readable(seconds: float, text: str) -> None:
    """A duration has at most two units."""
    assert readable(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("connection_refused", "connection refused"),
        ("http_404: HTTP 404", "HTTP 404"),
        ("http_503: HTTP 503: upstream: is down", "HTTP 503: upstream: is down"),
        ("connection_refused: connection refused", "connection refused"),
        ("not_sent: Apprise does not say why", "not sent: Apprise does not say why"),
        ("", ""),
    ],
)
def test_what_a_sink_suffers_from_is_said_once(code: str, said: str) -> None:
    assert trouble(code) == said


def test_a_short_outage_shows_its_seconds() -> None:
    """Start and end within one minute are not the same time twice."""
    assert (
        "14:02:00\N{EN DASH}14:02:30 UTC (30 s)" in say(event(Edge.RECOVERED, 0.5), Part.EDIT).text
    )


def test_another_day_is_named() -> None:
    """A time of yesterday carries its date."""
    assert "since 2026-11-22 14:02 UTC (1 d 2 h)" in say(DOWN, Part.POST, seconds=26 * 3600).text


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        pytest.param("two\nlines\r\n\u2028more", "two lines more", id="lines"),
        pytest.param("\x1b[31mred\x1b[0m\x00\x07", "red", id="terminal controls"),
        pytest.param(
            "safe\u202egnp.exe\u2066\u200b\ufeff", "safegnp.exe", id="bidi and zero width"
        ),
        pytest.param("half \ud83d emoji 😀", "half � emoji 😀", id="lone surrogate"),
        pytest.param("x" * 30, "x" * 20 + "… (+10 characters)", id="too long"),
    ],
)
def test_only_what_can_be_seen_is_told(hostile: str, seen: str) -> None:
    """Text from the cluster is one line without anything that acts on its reader's screen."""
    assert visible(hostile, 20) == seen


def test_a_megabyte_of_condition_message_stays_small() -> None:
    """The size of what the cluster says does not decide the size of what we say."""
    message = say(event(Edge.DEGRADED, message="\x07x" * 500_000), Part.POST)
    assert len(message.text) < 5000
    assert "characters)" in message.text


def test_neighbouring_incidents_have_different_short_ids() -> None:
    """Incidents that open in the same second can be told apart by eye."""
    ids = {short_id(event(Edge.DEGRADED, incident=f"{BEGAN}-{n:08d}").incident) for n in range(9)}
    assert len(ids) == 9
