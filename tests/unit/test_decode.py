"""Every input rule of reference §2: what a field means when it is there, missing, null or nonsense."""

import copy
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from watcher.cluster.decode import (
    Bookmark,
    Details,
    Status,
    Unreadable,
    decode_line,
    decode_page,
    snapshot_from,
)
from watcher.core.model import DeploymentSnapshot
from watcher.errors import Protocol
from watcher.ports import Applied, Deleted

AT = "2026-01-01T00:00:00Z"
FULL: dict[str, Any] = {
    "kind": "Deployment",
    "apiVersion": "apps/v1",
    "metadata": {
        "name": "checkout",
        "namespace": "shop",
        "uid": "u1",
        "resourceVersion": "7",
        "generation": 4,
        "creationTimestamp": AT,
        "annotations": {"deployment.kubernetes.io/revision": "3"},
    },
    "spec": {
        "replicas": 4,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
        },
    },
    "status": {
        "observedGeneration": 4,
        "replicas": 5,
        "updatedReplicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "conditions": [
            {
                "type": "Available",
                "status": "False",
                "reason": "MinimumReplicasUnavailable",
                "message": "no",
                "lastTransitionTime": AT,
                "lastUpdateTime": AT,
            }
        ],
    },
}
ABSENT = object()


def having(path: str, value: object) -> dict[str, Any]:
    """The full object with one thing changed."""
    changed = copy.deepcopy(FULL)
    *way, last = path.split("/")
    place: Any = changed
    for key in way:
        place = place[key]
    if value is ABSENT:
        place.pop(last, None)
    else:
        place[last] = value
    return changed


def seen(obj: object) -> DeploymentSnapshot:
    """What both ways of reading make of it: they must agree."""
    line = msgspec.json.encode({"type": "MODIFIED", "object": obj})
    page = decode_page(
        msgspec.json.encode(
            {
                "kind": "DeploymentList",
                "metadata": {"resourceVersion": "1"},
                "items": [obj],
            }
        ),
        "prod",
    )
    plain = snapshot_from(obj, "prod")
    assert page.snapshots == (plain,)
    event = decode_line(line, "shop", "prod")
    assert isinstance(event, Unreadable) or event == Applied("shop", plain)
    return plain


def test_reads_a_whole_deployment():
    """All the fields health needs arrive, and nothing is malformed."""
    assert seen(FULL) == DeploymentSnapshot(
        cluster="prod",
        namespace="shop",
        name="checkout",
        uid="u1",
        resource_version="7",
        generation=4,
        observed_generation=4,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        revision=3,
        desired=4,
        max_unavailable=1,
        replicas=5,
        updated=3,
        ready=2,
        available=1,
        available_condition=seen(FULL).available_condition,
    )
    condition = seen(FULL).available_condition
    assert condition is not None
    assert (condition.status, condition.reason, condition.message, condition.transitioned_at) == (
        "False",
        "MinimumReplicasUnavailable",
        "no",
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("path", "value", "field", "want"),
    [
        pytest.param("kind", ABSENT, "malformed", "", id="an item without kind is a Deployment"),
        pytest.param("apiVersion", ABSENT, "malformed", "", id="no apiVersion"),
        pytest.param("metadata/namespace", ABSENT, "namespace", "default", id="no namespace"),
        pytest.param("metadata/namespace", "", "namespace", "default", id="empty namespace"),
        pytest.param("metadata/uid", ABSENT, "uid", "shop/checkout", id="no uid"),
        pytest.param("metadata/uid", None, "uid", "shop/checkout", id="null uid"),
        pytest.param("metadata/resourceVersion", None, "resource_version", "", id="null version"),
        pytest.param("metadata/generation", ABSENT, "generation", None, id="no generation"),
        pytest.param("metadata/creationTimestamp", None, "created_at", None, id="null creation"),
        pytest.param("metadata/creationTimestamp", "soon", "created_at", None, id="bad creation"),
        pytest.param("metadata/creationTimestamp", 5, "created_at", None, id="creation a number"),
        pytest.param(
            "metadata/creationTimestamp", "2026-01-01T00:00:00", "created_at", None, id="no zone"
        ),
        pytest.param(
            "metadata/creationTimestamp", "9999-12-31T23:59:59Z", "created_at", None, id="far"
        ),
        pytest.param("metadata/deletionTimestamp", AT, "deleting", True, id="being deleted"),
        pytest.param("metadata/deletionTimestamp", 5, "deleting", True, id="deleted at a number"),
        pytest.param("metadata/deletionTimestamp", None, "deleting", False, id="null deletion"),
        pytest.param("metadata/annotations", None, "revision", 0, id="null annotations"),
        pytest.param("metadata/annotations", [], "revision", 0, id="annotations a list"),
        pytest.param("spec", None, "desired", 1, id="null spec"),
        pytest.param("spec", ABSENT, "desired", 1, id="no spec"),
        pytest.param("spec/replicas", ABSENT, "desired", 1, id="no replicas is one"),
        pytest.param("spec/replicas", None, "desired", 1, id="null replicas is one"),
        pytest.param("spec/replicas", 0, "desired", 0, id="zero replicas is on purpose"),
        pytest.param("spec/paused", True, "paused", True, id="paused"),
        pytest.param("spec/paused", None, "paused", False, id="null paused"),
        pytest.param("spec/minReadySeconds", 10, "min_ready_seconds", 10, id="min ready"),
        pytest.param("spec/progressDeadlineSeconds", ABSENT, "progress_deadline", 600, id="600"),
        pytest.param("spec/progressDeadlineSeconds", None, "progress_deadline", 600, id="null 600"),
        pytest.param("spec/progressDeadlineSeconds", 30, "progress_deadline", 30, id="30"),
        pytest.param(
            "spec/progressDeadlineSeconds", 2**31 - 1, "progress_deadline", None, id="off"
        ),
        pytest.param("status", ABSENT, "has_status", False, id="no status"),
        pytest.param("status", None, "has_status", False, id="null status"),
        pytest.param("status", {}, "has_status", False, id="empty status"),
        pytest.param("status", {"observedGeneration": 1}, "has_status", True, id="some status"),
        pytest.param("status/readyReplicas", ABSENT, "ready", 0, id="an omitted count is zero"),
        pytest.param("status/readyReplicas", None, "ready", 0, id="a null count is zero"),
        pytest.param("status/observedGeneration", None, "observed_generation", 0, id="observed"),
        pytest.param("status/conditions", None, "available_condition", None, id="null conditions"),
        pytest.param("status/conditions", [], "available_condition", None, id="no conditions"),
    ],
)
def test_reads_what_is_missing_null_or_odd(path, value, field, want):
    """A field that is missing, null or unreadable but harmless has its documented meaning."""
    snapshot = seen(having(path, value))
    assert getattr(snapshot, field) == want
    assert snapshot.malformed == ""


@pytest.mark.parametrize(
    ("path", "value", "names"),
    [
        pytest.param("kind", "Pod", "kind", id="another kind"),
        pytest.param("kind", 5, "kind", id="kind a number"),
        pytest.param("metadata", None, "metadata.name", id="null metadata"),
        pytest.param("metadata", [], "metadata", id="metadata a list"),
        pytest.param("metadata/name", ABSENT, "metadata.name", id="no name"),
        pytest.param("metadata/name", "", "metadata.name", id="empty name"),
        pytest.param("metadata/name", 5, "metadata.name", id="name a number"),
        pytest.param("metadata/uid", 5, "metadata.uid", id="uid a number"),
        pytest.param("metadata/generation", "4", "metadata.generation", id="generation a string"),
        pytest.param("metadata/generation", -1, "metadata.generation", id="generation negative"),
        pytest.param("spec", "x", "spec", id="spec a string"),
        pytest.param("spec/replicas", 3.0, "spec.replicas", id="replicas a float"),
        pytest.param("spec/replicas", True, "spec.replicas", id="replicas a bool"),
        pytest.param("spec/replicas", "3", "spec.replicas", id="replicas a string"),
        pytest.param("spec/replicas", -1, "spec.replicas", id="replicas negative"),
        pytest.param("spec/replicas", 2**31, "spec.replicas", id="replicas out of range"),
        pytest.param("spec/paused", "yes", "spec.paused", id="paused a string"),
        pytest.param("spec/strategy", "Recreate", "spec.strategy", id="strategy a string"),
        pytest.param("spec/minReadySeconds", -1, "spec.minReadySeconds", id="min ready negative"),
        pytest.param("status", [], "status", id="status a list"),
        pytest.param("status/replicas", -1, "status.replicas", id="count negative"),
        pytest.param("status/updatedReplicas", 0.5, "status.updatedReplicas", id="count a half"),
        pytest.param("status/readyReplicas", "1", "status.readyReplicas", id="count a string"),
        pytest.param("status/availableReplicas", {}, "status.availableReplicas", id="count a map"),
        pytest.param("status/observedGeneration", -2, "status.observedGeneration", id="observed"),
        pytest.param("status/conditions", {}, "status.conditions", id="conditions a map"),
        pytest.param("status/conditions", "x", "status.conditions", id="conditions a string"),
    ],
)
def test_names_what_is_malformed(path, value, names):
    """What cannot be judged says so, and names the field."""
    assert names in seen(having(path, value)).malformed


@pytest.mark.parametrize("value", [None, 5, "x", [], True, 1.5])
def test_what_is_no_object_is_malformed(value):
    """Any JSON value becomes a snapshot, and never one that could pass for a cluster."""
    snapshot = seen(value)
    assert snapshot.malformed
    assert not snapshot.subject.is_cluster


@pytest.mark.parametrize(
    ("desired", "strategy", "want"),
    [
        pytest.param(4, ABSENT, 1, id="no strategy is 25%"),
        pytest.param(3, ABSENT, 0, id="percent rounds down"),
        pytest.param(4, {"type": None, "rollingUpdate": None}, 1, id="nulls are 25%"),
        pytest.param(10, {"rollingUpdate": {"maxSurge": 1}}, 2, id="only surge given"),
        pytest.param(10, {"rollingUpdate": {"maxUnavailable": 3}}, 3, id="a number of pods"),
        pytest.param(10, {"rollingUpdate": {"maxUnavailable": "35%"}}, 3, id="a percentage"),
        pytest.param(2, {"rollingUpdate": {"maxUnavailable": 5}}, 2, id="capped at replicas"),
        pytest.param(2, {"rollingUpdate": {"maxUnavailable": "400%"}}, 2, id="percent capped"),
        pytest.param(
            3, {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}, 1, id="both zero is one"
        ),
        pytest.param(
            3,
            {"rollingUpdate": {"maxUnavailable": "1%", "maxSurge": "0%"}},
            1,
            id="both round to 0",
        ),
        pytest.param(
            3, {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "1%"}}, 0, id="surge rounds up"
        ),
        pytest.param(4, {"type": "Recreate"}, 0, id="recreate"),
        pytest.param(0, ABSENT, 0, id="nothing desired"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": "many"}}, 1, id="no percentage"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": "2"}}, 1, id="digits without percent"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": "-50%"}}, 1, id="negative percent"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": -2}}, 1, id="negative"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": 2.0}}, 1, id="a float"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": "\uff19%"}}, 1, id="other digits"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": "9" * 5000 + "%"}}, 1, id="endless"),
        pytest.param(4, {"rollingUpdate": {"maxUnavailable": []}}, 1, id="a list"),
        pytest.param(4, {"rollingUpdate": "x"}, 1, id="rollingUpdate a string"),
    ],
)
def test_resolves_max_unavailable(desired, strategy, want):
    """The floor follows the API's rounding; what cannot be read is its default, 25%."""
    obj = having("spec/strategy", strategy)
    obj["spec"]["replicas"] = desired
    snapshot = seen(obj)
    assert (snapshot.max_unavailable, snapshot.malformed) == (want, "")


def conditions(*entries: object) -> DeploymentSnapshot:
    snapshot = seen(having("status/conditions", list(entries)))
    assert snapshot.malformed == ""
    return snapshot


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        "Available",
        [],
        {},
        {"type": None},
        {"type": 5},
        {"type": "Sunny", "status": "True"},
    ],
)
def test_skips_what_is_no_known_condition(entry):
    """An entry that is no object, has no type or an unknown one does not hide the others."""
    found = conditions(entry, {"type": "Available", "status": "True"}).available_condition
    assert found is not None
    assert found.status == "True"


def test_the_first_of_a_condition_type_counts():
    """Conditions are matched by type, whatever their order; a second of a type is ignored."""
    snapshot = conditions(
        {"type": "Progressing", "status": "True"},
        {"type": "Available", "status": "False"},
        {"type": "Available", "status": "True"},
    )
    assert snapshot.available_condition is not None
    assert snapshot.available_condition.status == "False"
    assert snapshot.progressing_condition is not None


@pytest.mark.parametrize("odd", [5, [], {}, {"replicas": 1}, None, True])
@pytest.mark.parametrize("field", ["status", "reason", "message", "lastTransitionTime"])
def test_odd_parts_of_a_condition_count_as_absent(field, odd):
    """A part of the wrong type loses nothing but itself."""
    entry = {"type": "Available", "status": "False", "reason": "R", "message": "M"}
    found = conditions(entry | {field: odd}).available_condition
    without = conditions({key: entry[key] for key in entry if key != field}).available_condition
    assert found is not None
    assert found == without


@pytest.mark.parametrize(
    ("kind", "status", "message", "want"),
    [
        ("Available", "False", "too few", "too few"),
        ("Available", "True", "enough", ""),
        ("Progressing", "False", "timed out\nreally", "timed out…"),
        ("Progressing", "Unknown", "paused", ""),
        ("ReplicaFailure", "True", "x" * 9000, "x" * 500 + "…"),
        ("ReplicaFailure", "False", "was so", ""),
    ],
)
def test_keeps_the_first_line_of_a_fault(kind, status, message, want):
    """Messages are kept only where they tell of a fault: they are most of an object's text. What is cut says so."""
    snapshot = conditions({"type": kind, "status": status, "message": message})
    kept = {
        "Available": snapshot.available_condition,
        "Progressing": snapshot.progressing_condition,
        "ReplicaFailure": snapshot.replica_failure_condition,
    }[kind]
    assert kept is not None
    assert kept.message == want


def test_keeps_only_the_annotations_meant_for_us():
    """Ours, without the prefix, strings only, and neither many nor long."""
    assert seen(
        having(
            "metadata/annotations",
            {
                "deployment-watcher.dev/route": "payments",
                "deployment-watcher.dev/owner": 5,
                "deployment-watcher.dev/runbook": "r" * 5000,
                "example.com/ignore": "true",
            },
        )
    ).annotations == {"route": "payments", "runbook": "r" * 1024}
    many = {f"deployment-watcher.dev/{n}": "x" for n in range(50)}
    kept = seen(having("metadata/annotations", many)).annotations
    assert kept is not None
    assert len(kept) == 20


@pytest.mark.parametrize("revision", ["", "x", "-1", "1.5", "\uff19", "9" * 400, None, 7])
def test_an_unreadable_revision_is_zero(revision):
    """A revision that is no number is as good as none."""
    annotations = {"deployment.kubernetes.io/revision": revision}
    assert seen(having("metadata/annotations", annotations)).revision == 0


def line(kind: str, obj: object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj})


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        pytest.param(line("ADDED", FULL), Applied, id="added"),
        pytest.param(line("MODIFIED", FULL), Applied, id="modified"),
        pytest.param(line("DELETED", FULL), Deleted, id="deleted"),
        pytest.param(line("MODIFIED", having("spec/replicas", -1)), Applied, id="malformed"),
        pytest.param(line("PATCHED", FULL), Unreadable, id="unknown type"),
        pytest.param(line("ADDED", having("kind", "Table")), Unreadable, id="another kind"),
        pytest.param(line("ADDED", having("apiVersion", "v1")), Unreadable, id="another version"),
        pytest.param(line("ADDED", having("metadata/name", ABSENT)), Unreadable, id="nameless"),
        pytest.param(line("ADDED", None), Unreadable, id="null object"),
        pytest.param(b'{"type":"ADDED"}', Unreadable, id="no object"),
        pytest.param(b'{"object":{}}', Unreadable, id="no type"),
        pytest.param(b"[]", Unreadable, id="a list"),
        pytest.param(b"<html>", Unreadable, id="html"),
        pytest.param(b'{"type":"ADDED","object":{"kind":"Depl', Unreadable, id="cut off"),
        pytest.param(b'{"type":"ADDED","object":{"kind":"\xff"}}', Unreadable, id="no UTF-8"),
        pytest.param(
            b'{"type":"ADDED","object":{"x":' + b"[" * 99999 + b"]" * 99999 + b"}}",
            Unreadable,
            id="endlessly nested",
        ),
    ],
)
def test_reads_a_line(raw, want):
    """Each line of a watch is an event of a Deployment or says that it is none; none raises."""
    assert type(decode_line(raw, "shop", "prod")) is want


def test_a_bookmark_gives_its_version():
    """A bookmark is an object of which only the version counts, nulls and all."""
    raw = (
        b'{"type":"BOOKMARK","object":{"kind":"Deployment","apiVersion":"apps/v1","metadata":'
        b'{"resourceVersion":"12","creationTimestamp":null},"spec":{"selector":null,"template":'
        b'{"metadata":{"creationTimestamp":null},"spec":{"containers":null}},"strategy":{}},"status":{}}}'
    )
    assert decode_line(raw, "", "prod") == Bookmark("12")


@pytest.mark.parametrize(
    ("obj", "want"),
    [
        pytest.param(
            {
                "kind": "Status",
                "status": "Failure",
                "code": 410,
                "reason": "Expired",
                "metadata": {},
            },
            Status(410, "Expired"),
            id="as the API sends it",
        ),
        pytest.param({"kind": "Status", "code": 500}, Status(500), id="without reason or status"),
        pytest.param({"code": True, "reason": 5, "details": []}, Status(), id="of odd types"),
        pytest.param(
            {"code": 504, "details": {"retryAfterSeconds": 3}},
            Status(504, details=Details(3)),
            id="wait",
        ),
        pytest.param(None, Status(), id="null"),
    ],
)
def test_an_error_event_is_read_as_far_as_it_goes(obj, want):
    """An ERROR without a reason, a code or even an object is an error still, and no crash."""
    assert decode_line(line("ERROR", obj), "", "prod") == want


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"{}", "no DeploymentList", id="an empty object"),
        pytest.param(b"<html>", "not readable", id="html"),
        pytest.param(b"", "not readable", id="nothing"),
        pytest.param(
            b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}', "no Dep", id="pods"
        ),
        pytest.param(
            b'{"kind":"DeploymentList","metadata":{"resourceVersion":"1"}}', "no Dep", id="no items"
        ),
        pytest.param(
            b'{"kind":"DeploymentList","metadata":{},"items":[]}',
            "resourceVersion",
            id="no version",
        ),
        pytest.param(b'{"kind":"DeploymentList","items":[]}', "resourceVersion", id="no metadata"),
    ],
)
def test_refuses_what_is_no_whole_list(body, says):
    """An answer that is not plainly a complete page must not pass for an empty cluster."""
    with pytest.raises(Protocol, match=says):
        decode_page(body, "prod")


def test_reads_a_page():
    """Null items are an empty page; one bad item does not spoil the others."""
    head = b'{"kind":"DeploymentList","metadata":{"resourceVersion":"5","continue":"abc"},"items":'
    assert decode_page(head + b"null}", "prod").snapshots == ()
    good = msgspec.json.encode(FULL)
    page = decode_page(head + b"[" + good + b',{"spec":5},' + good + b"]}", "prod")
    assert (page.version, page.next) == ("5", "abc")
    assert [bool(s.malformed) for s in page.snapshots] == [False, True, False]
