"""Which namespaces are left out, and what of that the API server is asked to do."""

import pytest

from watcher.core.namespaces import Exclusion

OUT = Exclusion(("kube-system", "dev-*", "*-tmp", "ci-?"))


@pytest.mark.parametrize(
    ("namespace", "out"),
    [
        ("kube-system", True),
        ("kube-system-2", False),
        ("kube", False),
        ("dev-1", True),
        ("dev-", True),
        ("dev", False),
        ("devops", False),
        ("my-dev-1", False),
        ("load-tmp", True),
        ("ci-1", True),
        ("ci-12", False),
        ("", False),
    ],
)
def test_names_are_whole_and_patterns_are_globs(namespace, out):
    """A name is that name only; `*` is any text, `?` one character."""
    assert (namespace in OUT) is out


def test_plain_names_are_left_to_the_server():
    """It has no selector for patterns."""
    both = Exclusion(("kube-system", "dev-*", "kube-public"))
    assert both.field_selector == "metadata.namespace!=kube-system,metadata.namespace!=kube-public"
    assert Exclusion(("dev-*",)).field_selector == ""
    assert Exclusion().field_selector == ""
