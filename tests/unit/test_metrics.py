"""docs/metrics.md and the registry say the same."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from watcher.core.delivery import DeliveryState
from watcher.core.retry import Breaker
from watcher.metrics import Metrics
from watcher.ports import Probe, Stream
from watcher.testing.clock import ManualClock
from watcher.view import ClusterView, View

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SUFFIX = {"counter": "_total", "info": "_info"}


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(), re.M)
    return {name: (kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}


def registered() -> dict[str, tuple[str, frozenset[str]]]:
    """Of a process in which everything has happened once."""
    view, stream = View(), Stream(last_byte_at=NOW, breaks=Counter(ended=1), shortened_by="cut")
    cluster = ClusterView("prod", [""], lambda _: stream, timedelta(seconds=75), NOW)
    cluster.probe, cluster.complete_at = Probe(), NOW
    view.clusters["prod"] = cluster
    metrics = Metrics(view, ManualClock(NOW))
    for each in vars(metrics).values():
        if labels := getattr(each, "_labelnames", ()):
            each.labels(*labels)
    metrics.render([("hook", DeliveryState.PENDING, 1, NOW)])
    found = {}
    for family in metrics.registry.collect():
        labels = {name for sample in family.samples for name in sample.labels}
        name = family.name + SUFFIX.get(family.type, "")
        found[name] = (family.type, frozenset(labels - {"le"}))
    return {name: each for name, each in found.items() if name.startswith("watcher_")}


def test_the_docs_have_every_metric_its_kind_and_its_labels() -> None:
    assert documented() == registered()


def test_how_a_breaker_stands() -> None:
    """Closed, open while nothing is tried, half open once one delivery may be risked."""
    closed = Breaker()
    for _ in range(4):
        closed = closed.failed(NOW)
    opened = closed.failed(NOW)
    assert [closed.state(NOW), opened.state(NOW)] == [0, 2]
    assert opened.until is not None
    assert opened.state(opened.until) == 1


def test_a_process_that_writes_no_more_does_not_know_the_queue() -> None:
    """What it knew as the writer would keep an alert alive, or hide that of the next one."""
    metrics = Metrics(view := View(), ManualClock(NOW))
    metrics.queue_fill.set(0.9)
    shown = []
    for view.leading in (True, False):
        shown.append(re.findall(rb"(?m)^watcher_queue_fill_ratio (.+)$", metrics.render([])))
    assert shown == [[b"0.9"], [b"NaN"]]
