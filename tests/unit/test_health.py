"""The verdicts of reference/health.md §2, §3 and §6, a snapshot a line, each beside its neighbours."""

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.deployments import CREATED, DROP, ZERO, Json, having, web
from watcher.cluster.decode import snapshot_from
from watcher.core.baseline import NOTHING_KNOWN, notice, settle
from watcher.core.health import assess
from watcher.core.model import Assessment, Baseline, Health, Severity
from watcher.core.policy import HealthPolicy
from watcher.core.words import REASONS

POLICY = HealthPolicy()
IN_FLIGHT = "ReplicaSetUpdated"
TIMED_OUT: dict[str, Any] = {"reason": "ProgressDeadlineExceeded", "progressing": "False"}
HALTED: dict[str, Any] = {"reason": "DeploymentPaused", "progressing": "Unknown", "paused": True}
QUOTA = "pods is forbidden: exceeded quota\nsecond line"
NOT_YET: dict[str, Any] = {"turned": CREATED + 5, "reason": IN_FLIGHT}
"""A first rollout: never available since it was created."""


def judged(obj: object, before: Json | None = None, ago: float = 0) -> Assessment:
    """The verdict at second 0, where `before` is what was seen `ago` seconds earlier."""
    baseline, previous, verdict = NOTHING_KNOWN, None, None
    then = ZERO - timedelta(seconds=ago)
    if before is not None:
        previous = snapshot_from(before, "c")
        known = notice(baseline, None, previous, then, POLICY.recovered_for)
        verdict = assess(previous, known, then, POLICY)
        baseline = settle(baseline, known, previous, verdict, then)
    snapshot = snapshot_from(obj, "c")
    baseline = notice(baseline, previous, snapshot, then, POLICY.recovered_for)
    return assess(snapshot, baseline, ZERO, POLICY)


def words(verdict: Assessment) -> str:
    """`degraded below_minimum warning`, as the tables spell a verdict."""
    return " ".join(filter(None, (verdict.health, verdict.reason, verdict.severity)))


# Health alone where the rule names no reason.
MALFORMED = "unknown malformed"
UNOBSERVED = "progressing spec_not_observed"
FIRST = "progressing first_rollout"
RECREATE_GAP = "progressing recreate_gap"
ROLLING = "progressing rolling_out"
SCALING = "progressing scaling_up"
SHORT = "progressing short_within_budget"
NONE = "degraded none_available critical"
BELOW = "degraded below_minimum warning"
STALLED = "degraded rollout_stalled warning"
NO_PODS = "degraded pods_not_created warning"

RULES: dict[str, tuple[object, str]] = {
    # 1: never crash, never page on garbage
    "1: another kind": (having(web(0), kind="StatefulSet"), MALFORMED),
    "1: a list item without kind": (having(web(), kind=DROP), "healthy"),
    "1: no object": (None, MALFORMED),
    "1: a string": ("Deployment", MALFORMED),
    "1: a list": ([web()], MALFORMED),
    "1: no metadata": (having(web(0), metadata=None), MALFORMED),
    "1: no name": (having(web(0), metadata__name=DROP), MALFORMED),
    "1: an empty name": (having(web(0), metadata__name=""), MALFORMED),
    "1: a negative count": (having(web(0), status__readyReplicas=-1), MALFORMED),
    "1: a negative desired count": (having(web(0), spec__replicas=-3), MALFORMED),
    "1: a fraction": (having(web(0), status__availableReplicas=1.5), MALFORMED),
    "1: a count as text": (having(web(0), status__updatedReplicas="3"), MALFORMED),
    "1: a count as truth": (having(web(0), spec__replicas=True), MALFORMED),
    "1: conditions an object": (having(web(0), status__conditions={}), MALFORMED),
    "1: conditions a text": (having(web(0), status__conditions="x"), MALFORMED),
    "1: beats deletion": (having(web(0, deleting=True), status__replicas=-1), MALFORMED),
    # 2: someone asked for it
    "2: deleting": (web(0, deleting=True), "deleting"),
    "2: beats an unobserved spec": (web(deleting=True, generation=2, observed=1), "deleting"),
    "2: null is not deleting": (having(web(0), metadata__deletionTimestamp=None), NONE),
    # 3: an old status neither pages nor recovers
    "3: observed is behind": (web(0, generation=3, observed=2), UNOBSERVED),
    "3: observed is behind, all serve": (web(generation=3, observed=2), UNOBSERVED),
    "3: observed is level": (web(0, generation=3, observed=3), NONE),
    "3: observed is ahead": (web(0, generation=3, observed=4), NONE),
    "3: never observed": (having(web(), status__observedGeneration=DROP), UNOBSERVED),
    "3: no generation, nothing to compare": (having(web(0), metadata__generation=DROP), NONE),
    "3: no status": (having(web(), status=DROP), UNOBSERVED),
    "3: null status": (having(web(), status=None), UNOBSERVED),
    "3: beats zero": (web(0, 0, generation=2, observed=1), UNOBSERVED),
    "3: beats paused": (web(paused=True, generation=2, observed=1), UNOBSERVED),
    "3: beats a timeout": (web(0, generation=2, observed=1, **TIMED_OUT), UNOBSERVED),
    # 4: nothing is promised
    "4: zero": (web(0, 0), "scaled_to_zero"),
    "4: zero, pods remain": (web(0, 0, total=2), "progressing scaling_down"),
    "4: beats a left-over timeout": (web(0, 0, **TIMED_OUT), "scaled_to_zero"),
    "4: beats a left-over failure": (web(0, 0, failure=QUOTA), "scaled_to_zero"),
    "4: beats paused": (web(0, 0, **HALTED), "scaled_to_zero"),
    "4: one is not zero": (web(0, 1, unavailable=0), NONE),
    # 5: pausing stops rollouts, it does not excuse an outage
    "5: paused, all serve": (web(**HALTED), "paused"),
    "5: paused at the floor": (web(2, **HALTED), "paused"),
    "5: paused below the floor": (web(1, **HALTED), BELOW),
    "5: paused, none serve": (web(0, **HALTED), NONE),
    "5: paused, none serve, floor 0": (web(0, 1, revision=2, **HALTED), NONE),
    "5: paused, never rolled out": (web(0, turned=CREATED + 5, **HALTED), "paused"),
    "5: paused beats a timeout": (web(paused=True, **TIMED_OUT), "paused"),
    "5: paused below the floor with a timeout": (web(1, paused=True, **TIMED_OUT), BELOW),
    # 6: the controller already waited
    "6: timed out, old pods serve": (web(updated=1, total=4, **TIMED_OUT), STALLED),
    "6: timed out, none serve": (web(0, **TIMED_OUT), "degraded rollout_stalled critical"),
    "6: timed out the first time": (
        web(0, turned=CREATED + 5, **TIMED_OUT),
        "degraded rollout_stalled critical",
    ),
    "6: no replica set": (
        web(updated=0, total=3, reason="ReplicaSetCreateError", progressing="False"),
        "degraded replicaset_create_failed warning",
    ),
    "6: another reason": (web(reason="X", progressing="False"), "degraded progress_false warning"),
    "6: beats a failure": (web(1, failure=QUOTA, **TIMED_OUT), STALLED),
    "6: unknown is not False": (web(reason="DeploymentPaused", progressing="Unknown"), "healthy"),
    # 7: quota, LimitRange, PSA, webhook
    "7: below the floor": (web(1, updated=1, failure=QUOTA), NO_PODS),
    "7: none serve": (web(0, updated=0, failure=QUOTA), "degraded pods_not_created critical"),
    "7: beats the first rollout": (
        web(0, updated=0, failure=QUOTA, **NOT_YET),
        "degraded pods_not_created critical",
    ),
    "7: beats the Recreate gap": (
        web(0, updated=0, recreate=True, failure=QUOTA, reason=IN_FLIGHT),
        "degraded pods_not_created critical",
    ),
    "7: a cleared failure is none": (
        having(
            web(1, revision=2), status__conditions=[{"type": "ReplicaFailure", "status": "False"}]
        ),
        BELOW,
    ),
    # 8: the deadline will tell
    "8: never available": (web(0, **NOT_YET), FIRST),
    "8: some pods of the first rollout": (web(1, **NOT_YET), FIRST),
    "8: turned False in the first minute": (web(0, turned=CREATED + 60), FIRST),
    "8: turned False after it": (web(0, turned=CREATED + 61), NONE),
    "8: many edits of a first rollout": (web(0, revision=5, **NOT_YET), FIRST),
    "8: floor 0, first revision": (web(0, 1, reason=IN_FLIGHT), FIRST),
    "8: floor 0, finished once": (web(0, 1), NONE),
    "8: no conditions": (having(web(0), status__conditions=None), FIRST),
    "8: no conditions, second revision": (having(web(0, revision=2), status__conditions=[]), NONE),
    "8: no times, finished once": (web(0, turned=None), NONE),
    "8: no times, second revision": (web(0, turned=None, revision=2, reason=IN_FLIGHT), NONE),
    "8: no times, first revision": (web(0, turned=None, reason=IN_FLIGHT), FIRST),
    # 9: the strategy permits it
    "9: Recreate, counters behind the reason": (web(0, updated=0, recreate=True), RECREATE_GAP),
    "9: Recreate, new pods start": (web(1, recreate=True, reason=IN_FLIGHT), RECREATE_GAP),
    "9: Recreate, finished and crashed": (web(0, recreate=True), NONE),
    "9: Recreate, finished and short": (web(2, recreate=True), BELOW),
    "9: floor 0, in flight": (web(0, 1, reason=IN_FLIGHT, revision=2), ROLLING),
    "9: floor 0, old pods": (web(0, 1, updated=1, total=2, revision=2), ROLLING),
    "9: floor 1, in flight": (web(0, 1, unavailable=0, reason=IN_FLIGHT, revision=2), NONE),
    # 11: the controller never goes below the floor by itself
    "11: below the floor": (web(1), BELOW),
    "11: at the floor": (web(2), SHORT),
    "11: none serve": (web(0), NONE),
    "11: none serve though Available": (web(0, 1, capacity="True"), NONE),
    "11: during a rollout": (web(1, updated=1, total=4, reason=IN_FLIGHT), BELOW),
    "11: resumed": (web(1, reason="DeploymentResumed", progressing="Unknown"), BELOW),
    # 12: the rollout or the scale-up cannot proceed
    "12: floor met, one short": (web(2, updated=2, failure=QUOTA), NO_PODS),
    "12: all serve, not updated": (web(3, updated=1, total=3, failure=QUOTA), NO_PODS),
    "12: stale": (web(failure=QUOTA), "healthy"),
    # 13: contradictory; trust the worse
    "13: counters full": (web(capacity="False"), "degraded available_false warning"),
    "13: counters not full": (web(2, capacity="False"), SHORT),
    "13: Available unknown": (web(capacity="Unknown"), "healthy"),
    # 14
    "14: old pods remain": (web(total=4), ROLLING),
    "14: reason in flight, one short": (web(2, reason=IN_FLIGHT), ROLLING),
    "14: reason in flight, complete": (web(reason=IN_FLIGHT), "healthy"),
    "14: resumed": (web(2, reason="DeploymentResumed", progressing="Unknown"), ROLLING),
    "14: found": (web(2, reason="FoundNewReplicaSet"), ROLLING),
    "14: created": (web(2, reason="NewReplicaSetCreated"), ROLLING),
    "14: Recreate begins": (web(updated=0, total=3, recreate=True), ROLLING),
    # 15: kubernetes#44070
    "15: ready, not yet available": (web(2, ready=3, min_ready=30), "progressing min_ready_wait"),
    "15: none available, all ready": (web(0, ready=3, min_ready=30), "progressing min_ready_wait"),
    "15: one not ready": (web(2, ready=2, min_ready=30), SHORT),
    "15: without minReadySeconds": (web(2, ready=3), SHORT),
    # 16, 17, 18
    "16: replicas behind": (web(3, 4, total=3, updated=3), SCALING),
    "16: updated behind": (web(3, 4, updated=3, total=3, capacity="True"), SCALING),
    "17: nine of ten": (web(9, 10), SHORT),
    "18: all serve": (web(), "healthy"),
    "18: surplus while scaling down": (web(5, 3, updated=5), "healthy"),
}

INPUTS: dict[str, tuple[object, str]] = {
    "replicas null is one": (having(web(1, 1), spec__replicas=None), "healthy"),
    "replicas absent is one": (having(web(1, 1), spec__replicas=DROP), "healthy"),
    "replicas null and none serve": (having(web(0, 1), spec__replicas=None), NONE),
    "an absent count is zero": (having(web(), status__availableReplicas=DROP), NONE),
    "terminating pods are no capacity": (having(web(0), status__terminatingReplicas=3), NONE),
    "unavailableReplicas is not used": (having(web(), status__unavailableReplicas=5), "healthy"),
    "conditions in another order": (
        having(web(0), status__conditions=web(0)["status"]["conditions"][::-1]),
        NONE,
    ),
    "a condition without type": (
        having(web(), status__conditions=[{"status": "False"}, {"type": None}]),
        "healthy",
    ),
    "a condition of unknown type": (
        having(web(), status__conditions=[{"type": "Bewitched", "status": "False"}]),
        "healthy",
    ),
    "no deadline, no Progressing condition": (
        having(web(0, deadline=2147483647), status__conditions=web(0)["status"]["conditions"][:1]),
        NONE,
    ),
    "null annotations": (having(web(), metadata__annotations=None), "healthy"),
    "null spec is one replica": (having(web(1, 1), spec=None), "healthy"),
    "strategy null": (having(web(3, 4), spec__strategy=None), SHORT),
    "strategy null, below 75 %": (having(web(2, 4), spec__strategy=None), BELOW),
    "minReadySeconds: ready pods serve": (
        web(0, ready=2, min_ready=9, unavailable=1, capacity="False"),
        SHORT,
    ),
    "no minReadySeconds: they do not": (web(0, ready=3), NONE),
}

PEERS: dict[str, tuple[object, str]] = {
    "a rollout dips to the floor": (
        web(3, 4, updated=2, total=5, reason=IN_FLIGHT),
        ROLLING,
    ),
    "finished, 0 of 3": (web(0), NONE),
    "finished, 9 of 10": (web(9, 10, unavailable="25%", capacity="True"), SHORT),
    "timed out, old pods serve": (web(3, updated=1, total=4, **TIMED_OUT), STALLED),
    "quota blocks pods, floor met": (web(3, updated=0, total=3, failure=QUOTA), NO_PODS),
    "quota blocks pods, below": (web(1, updated=1, failure=QUOTA), NO_PODS),
    "the Recreate gap": (web(0, updated=0, recreate=True), RECREATE_GAP),
    "paused, all serve": (web(**HALTED), "paused"),
    "paused, below the floor": (web(1, **HALTED), BELOW),
    "scaled to zero": (web(0, 0), "scaled_to_zero"),
    "one replica, maxUnavailable 1": (web(0, 1), NONE),
    "maxUnavailable 100%": (web(0, unavailable="100%", capacity="True"), NONE),
    "spec not observed": (web(generation=2, observed=1), UNOBSERVED),
    "being deleted": (web(0, deleting=True), "deleting"),
    "ReplicaSetUpdated, counters full": (web(reason=IN_FLIGHT), "healthy"),
    "Available False, counters full": (web(capacity="False"), "degraded available_false warning"),
}


def _table(cases: dict[str, tuple[object, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("obj", "expected"), cases.values(), ids=cases.keys())


def _verdict(obj: object, expected: str) -> None:
    found = words(judged(obj))
    assert found == expected or (" " not in expected and found.split()[0] == expected)


@_table(RULES)
def test_rules(obj, expected):
    """Of the eighteen rules the first that matches decides."""
    _verdict(obj, expected)


@_table(INPUTS)
def test_inputs(obj, expected):
    """A field that is missing, null or informational means what the API says it means."""
    _verdict(obj, expected)


@_table(PEERS)
def test_situations_of_the_peers(obj, expected):
    """The situations that other tools judge otherwise come out as the reference says."""
    _verdict(obj, expected)


@pytest.mark.parametrize(
    ("unavailable", "surge", "desired", "floor"),
    [
        (None, None, 3, 3),  # 25 % of 3 is 0.75: rounds down
        (None, None, 4, 3),
        (None, None, 10, 8),
        (None, None, 1, 1),
        ("34%", "0%", 3, 2),
        ("33%", "0%", 3, 2),  # 0.99 → 0, surge 0 → 0: one may be away after all
        ("33%", "1%", 3, 3),  # surge rounds up to 1
        (0, 0, 3, 2),
        (0, 1, 3, 3),
        (2, 0, 3, 1),
        (10, 1, 3, 0),  # capped at replicas
        ("100%", 1, 3, 0),
        ("250%", 1, 3, 0),
        ("1%", None, 200, 198),
        ("a few", 1, 4, 3),  # unreadable: the API default
        (True, 1, 4, 3),
        (None, 0, 4, 3),
        (1, 0, 0, 0),
    ],
)
def test_floor(unavailable, surge, desired, floor):
    """maxUnavailable rounds down, maxSurge up, both at 0 leave one away, and the cap is replicas."""
    obj = web(desired, desired, unavailable=unavailable, surge=surge, capacity="True")
    assert snapshot_from(obj, "c").floor == floor


def test_recreate_promises_every_pod():
    """Recreate has no budget, whatever a left-over rollingUpdate says."""
    strategy = {"type": "Recreate", "rollingUpdate": {"maxUnavailable": 3}}
    assert snapshot_from(having(web(), spec__strategy=strategy), "c").floor == 3


RAISED: dict[str, tuple[Json, Json, float, str]] = {
    "the old pods serve": (web(3, unavailable=0), web(3, 30, updated=3), 0, SCALING),
    "one of them is lost": (web(3, unavailable=0), web(2, 30, updated=3), 0, BELOW),
    "down to the old floor": (web(10, 10, unavailable=2), web(8, 30, updated=10), 0, SCALING),
    "below the old floor": (web(10, 10, unavailable=2), web(7, 30, updated=10), 0, BELOW),
    "it was short already": (web(9, 10, unavailable=2), web(8, 30, updated=9), 0, SCALING),
    "from zero": (web(0, 0), web(0, 3, updated=0), 0, SCALING),
    "just before the grace is over": (web(3), web(3, 30, updated=3), 599, SCALING),
    "when the grace is over": (web(3), web(3, 30, updated=3), 600, BELOW),
    "from zero, when it is over": (web(0, 0), web(0, 3, updated=0), 600, NONE),
    "a lowered count has no grace": (web(10, 10), web(1, 5, updated=5), 0, BELOW),
    "a failure is told": (web(3), web(3, 30, updated=3, failure=QUOTA), 0, NO_PODS),
    "paused: no grace": (web(3), web(3, 30, updated=3, **HALTED), 0, BELOW),
    "raised while paused": (web(3, **HALTED), web(3, 30, updated=3), 0, SCALING),
}


@pytest.mark.parametrize(("before", "now", "ago", "expected"), RAISED.values(), ids=RAISED.keys())
def test_raised(before, now, ago, expected):
    """Raised replicas may take the grace to come up, as long as what served before still does."""
    assert words(judged(now, before, ago)) == expected


def test_was_available_once():
    """A Deployment seen settled has been available, however young its conditions look."""
    crashed = web(0, turned=CREATED + 30)
    assert words(judged(crashed)) == FIRST
    assert words(judged(crashed, before=web(3))) == NONE
    assert words(judged(crashed, before=web(0, 0))).split()[1] != "none_available"


LIMITS: dict[str, tuple[Json, float]] = {
    "not in flight, a long deadline": (web(2, deadline=1800), 900),
    "in flight, a short deadline": (web(2, reason=IN_FLIGHT, deadline=60), 900),
    "in flight, a long deadline": (web(2, reason=IN_FLIGHT, deadline=1800), 1800),
    "in flight, no deadline": (web(2, reason=IN_FLIGHT, deadline=2147483647), 900),
    "waiting for minReadySeconds": (web(2, ready=3, min_ready=1200, deadline=1800), 1260),
    "waiting a little": (web(2, ready=3, min_ready=30), 900),
    "not waiting for them": (web(2, ready=2, min_ready=1200), 900),
    "spec not observed": (web(generation=2, observed=1), 900),
    "first rollout": (web(0, **NOT_YET), 900),
    "Recreate gap": (web(0, updated=0, recreate=True), 900),
    "scaling down": (web(0, 0, total=2), 900),
}


@pytest.mark.parametrize(("obj", "limit"), LIMITS.values(), ids=LIMITS.keys())
def test_no_progress(obj, limit):
    """Whatever progresses without moving is degraded at its limit, and not a second sooner."""
    snapshot = snapshot_from(obj, "c")
    end = ZERO + timedelta(seconds=limit)
    baseline = Baseline(progressed_at=ZERO, progressing_since=ZERO)
    just_before = assess(snapshot, baseline, end - timedelta(seconds=1), POLICY)
    assert (just_before.health, just_before.until) == (Health.PROGRESSING, end)
    after = assess(snapshot, baseline, end, POLICY)
    assert (after.health, after.reason) == (Health.DEGRADED, "no_progress")
    assert after.severity is (Severity.WARNING if snapshot.serving else Severity.CRITICAL)


@pytest.mark.parametrize(
    ("obj", "said", "unsaid"),
    [
        (web(1), "1 of 3 replicas available, 2 needed", "\n"),
        (web(0, 1, unavailable=0), "0 of 1 replica available, 1 needed", "replicas"),
        (web(9, 10), "9 of 10 replicas available", "needed"),
        (web(3, updated=1, total=4, **TIMED_OUT), "old version still serves", "\n"),
        (web(0, updated=1, total=4, **TIMED_OUT), "0 of 3 replicas", "still serves"),
        (web(1, updated=1, failure=QUOTA), "exceeded quota", "second line"),
        (web(2, updated=2, failure=QUOTA), "exceeded quota", "second line"),
        (having(web(), status__readyReplicas=-1), "readyReplicas", "\n"),
        (having(web(), kind="Pod"), "Deployment", "\n"),
    ],
    ids=["below", "one replica", "in budget", "old", "none", "quota", "quota 12", "count", "kind"],
)
def test_words(obj, said, unsaid):
    """The message names what serves, what is desired, what is needed, and the cause's first line."""
    message = judged(obj).message
    assert said in message
    assert unsaid not in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = [
    "metadata", "spec", "status", "kind",
    *(f"metadata__{key}" for key in web()["metadata"]), "metadata__deletionTimestamp",
    *(f"spec__{key}" for key in web()["spec"]), "spec__strategy__rollingUpdate",
    "spec__strategy__rollingUpdate__maxUnavailable", "spec__strategy__rollingUpdate__maxSurge",
    *(f"status__{key}" for key in web()["status"]),
]  # fmt: skip


@given(JSON)
@example(math.inf)
def test_any_json_is_judged(value):
    """Whatever the server says, the verdict on something that is no Deployment is unknown."""
    assert judged(value).health is Health.UNKNOWN


@given(st.sampled_from(PATHS), JSON, st.sampled_from([web(), web(0), web(1, recreate=True)]))
def test_any_field_is_judged(path, value, obj):
    """One broken field never raises, and never turns into a reason that is not in the table."""
    broken = having(snapshot_copy(obj), **{path: value})
    verdict = judged(broken)
    assert verdict.health in Health
    assert (verdict.severity is not None) == (verdict.health is Health.DEGRADED)


def snapshot_copy(obj: Json) -> Json:
    """A deep copy of plain JSON."""
    return {
        key: snapshot_copy(value) if isinstance(value, dict) else value
        for key, value in obj.items()
    }


COUNTS = st.integers(0, 5)
ANY = st.builds(
    web,
    available=COUNTS,
    desired=COUNTS,
    updated=COUNTS,
    total=COUNTS,
    ready=COUNTS,
    unavailable=COUNTS,
    recreate=st.booleans(),
    reason=st.sampled_from(["NewReplicaSetAvailable", IN_FLIGHT, "ProgressDeadlineExceeded"]),
    progressing=st.sampled_from(["True", "False", "Unknown"]),
    capacity=st.sampled_from(["", "True", "False"]),
    failure=st.none() | st.just(QUOTA),
    paused=st.booleans(),
    min_ready=st.sampled_from([0, 10]),
    generation=st.integers(1, 2),
    observed=st.integers(1, 2),
    revision=st.integers(1, 2),
)


@given(ANY, st.none() | ANY, st.floats(0, 2000))
def test_critical_is_nothing_serves(obj, before, ago):
    """A degraded Deployment is critical when nothing serves and a warning otherwise."""
    verdict = judged(obj, before, ago)
    status = obj["status"]
    pods = status["availableReplicas"]
    if obj["spec"]["minReadySeconds"]:
        pods = max(pods, status["readyReplicas"])
    if verdict.health is Health.DEGRADED:
        assert verdict.severity is (Severity.WARNING if pods else Severity.CRITICAL)
    else:
        assert verdict.severity is None


def test_the_docs_explain_every_reason_and_every_health() -> None:
    """docs/health.md has each reason that a message can give in its tables, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "health.md").read_text()
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.M)
    assert sorted(re.findall(r"\w+", " ".join(cells))) == sorted([*REASONS, *Health])
