"""Whatever JSON comes, the typed way and the plain way of reading it agree, and neither raises."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from watcher.cluster.decode import decode_line, decode_page, snapshot_from
from watcher.ports import Applied

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
COUNT = st.integers(0, 2**31 - 1)
TIME = st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-01T12:30:00.5+02:00"])
PERCENT = st.integers(0, 200).map(lambda n: f"{n}%") | st.integers(0, 50)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any subset of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def deployment(odd: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A Deployment any field of which may be `odd` instead."""
    condition = some(
        type=st.sampled_from(["Available", "Progressing", "ReplicaFailure", "Sunny"]) | odd,
        status=st.sampled_from(["True", "False", "Unknown"]) | odd,
        reason=st.text(max_size=9) | odd,
        message=st.text(max_size=9) | odd,
        lastTransitionTime=TIME | odd,
        lastUpdateTime=TIME | odd,
    )
    annotations = st.dictionaries(
        st.sampled_from(["deployment-watcher.dev/owner", "deployment.kubernetes.io/revision", "x"]),
        st.text(max_size=9) | st.just("3") | odd,
    )
    return some(
        kind=st.just("Deployment") | odd,
        apiVersion=st.just("apps/v1") | odd,
        metadata=some(
            name=st.text(max_size=9) | odd,
            namespace=st.text(max_size=9) | odd,
            uid=st.text(max_size=9) | odd,
            resourceVersion=st.text(max_size=9) | odd,
            generation=COUNT | odd,
            creationTimestamp=TIME | odd,
            deletionTimestamp=TIME | odd,
            annotations=annotations | odd,
        )
        | odd,
        spec=some(
            replicas=COUNT | odd,
            paused=st.booleans() | odd,
            minReadySeconds=COUNT | odd,
            progressDeadlineSeconds=COUNT | odd,
            strategy=some(
                type=st.sampled_from(["Recreate", "RollingUpdate"]) | odd,
                rollingUpdate=some(maxSurge=PERCENT | odd, maxUnavailable=PERCENT | odd) | odd,
            )
            | odd,
        )
        | odd,
        status=some(
            observedGeneration=COUNT | odd,
            replicas=COUNT | odd,
            updatedReplicas=COUNT | odd,
            readyReplicas=COUNT | odd,
            availableReplicas=COUNT | odd,
            conditions=st.lists(condition | odd, max_size=4) | odd,
        )
        | odd,
    )


@given(deployment(odd=JSON) | JSON)
def test_both_ways_of_reading_agree(obj):
    """A page, a watch line and a file with the same object give the same snapshot."""
    plain = snapshot_from(obj, "prod")
    body = {"kind": "DeploymentList", "metadata": {"resourceVersion": "1"}, "items": [obj]}
    assert decode_page(msgspec.json.encode(body), "prod").snapshots == (plain,)
    event = decode_line(msgspec.json.encode({"type": "ADDED", "object": obj}), "", "prod")
    assert not isinstance(event, Applied) or event.snapshot == plain
    assert plain.name
    assert 0 <= plain.max_unavailable <= plain.desired


@given(deployment(odd=st.nothing()))
def test_a_well_formed_one_is_not_malformed(obj):
    """Whatever fields are left out, what keeps to the types is judged; only a name it needs."""
    named = bool(obj.get("metadata", {}).get("name"))
    assert (snapshot_from(obj, "prod").malformed == "") is named


@given(st.binary(max_size=60))
def test_no_line_raises(line):
    """Noise on the stream is an event of its own kind, never an exception."""
    decode_line(line, "", "prod")
