"""Every row of the acceptance table for delivery has its test, by name, or a reason why not yet."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
ALL = range(1, 80)
CLAIM = re.compile(r"Rows? ((?:\d+(?:, )?)+): ")
LEFT_OUT = {
    **dict.fromkeys(
        (34, 35, 37, 43, 44, 45, 46, 67, 68, 76),
        "storms, flapping, blindness and routes as a whole",
    ),
}


def claims() -> Iterator[tuple[str, int]]:
    """Which test's docstring names which row."""
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    found = CLAIM.match(ast.get_docstring(node) or "")
                    for row in found[1].split(", ") if found else ():
                        yield node.name, int(row)
                case _:
                    pass


def test_every_row_is_claimed_or_left_out_for_a_reason() -> None:
    """No row is forgotten, and none is both."""
    claimed = {row for _, row in claims()}
    assert claimed | LEFT_OUT.keys() == set(ALL), set(ALL) - claimed - LEFT_OUT.keys()
    assert claimed & LEFT_OUT.keys() == set()
