"""Each finding has the form that CONTRIBUTING.md gives it. `make findings` runs them."""

import os
import re
from pathlib import Path

import pytest

FINDINGS = sorted((Path(__file__).parents[2] / "findings").iterdir())


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.stem)
def test_a_finding_says_what_surprises_and_notices_when_it_changes(path: Path) -> None:
    assert path.suffix == ".sh"
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert re.match(r"#!/usr/bin/env bash\n# .+\.\n#\n# Expected: ", text)
    assert re.search(r"^# Seen: +.*^# Matters: ", text, re.MULTILINE | re.DOTALL)
    for line in ("set -euo pipefail", "folder=$(mktemp -d)", 'cd "$folder"'):
        assert line in text
    assert 'diff "$folder/expected" "$folder/seen" ||' in text
    assert re.search(r"==\d|@\d|\bv\d", text)  # pinned
    assert "watcher" not in text  # the product has no part in it
