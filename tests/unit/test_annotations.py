"""A Deployment's own annotations: what is obeyed, and what is told to be wrong."""

from datetime import UTC, datetime, timedelta

import pytest

from watcher.core.annotations import Overrides, read


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("ignore", " Yes ", Overrides(ignore=True)),
        ("ignore", "false", Overrides()),
        ("degraded-for", "5m", Overrides(degraded_for=timedelta(minutes=5))),
        (
            "silence-until",
            "2026-11-22T15:00:00+01:00",
            Overrides(silence_until=datetime(2026, 11, 22, 14, tzinfo=UTC)),
        ),
        (
            "silence-until",
            "2026-11-22 14:00",
            Overrides(silence_until=datetime(2026, 11, 22, 14, tzinfo=UTC)),
        ),
    ],
)
def test_an_annotation_is_obeyed(name: str, text: str, want: Overrides) -> None:
    assert read({name: text}) == want


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ignore", "maybe"),
        ("degraded-for", "60"),
        ("silence-until", "tomorrow"),
        ("silence-until", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_a_bad_one_is_reported_without_its_text_and_not_obeyed(name: str, text: str) -> None:
    asked = read({name: text, "ignore": "true"} if name != "ignore" else {name: text})
    (problem,) = asked.problems
    assert problem.startswith(f"{name}: ")
    assert text not in problem
    assert asked == Overrides(ignore=name != "ignore", problems=(problem,))


@pytest.mark.parametrize("text", ["https://attacker.example/hook", "nobody", ""])
def test_an_unknown_one_is_reported_and_nothing_else(text: str) -> None:
    """Row 58: a URL or receiver in an annotation is a warning on the status pages, and no request."""
    asked = read({"route": text, "degraded_for": "5m"})
    assert asked == Overrides(
        problems=(
            "degraded_for: has no effect in this version",
            "route: has no effect in this version",
        )
    )
