"""The table of bounds in tests/README.md names every bound of the product, with its value."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import reaper

ROOT: Final = Path(reaper.__file__).parent
TABLE: Final = Path(__file__).parents[1] / "README.md"
BOUND: Final = re.compile(r"(^|_)(MAX|MOST|LONGEST|FEW|FEWEST)(_|$)|_LIMIT$")
ROW: Final = re.compile(r"^\| (\w+) \| [^|]+ \| `([^`]+)` \| [^|]+ \|$", re.MULTILINE)


def bounds() -> Iterator[tuple[str, str]]:
    """The package and the value of each constant with such a name and a number in its value."""
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value) if BOUND.search(name):
                    if re.search("[0-9]", shown := ast.unparse(value)):
                        yield path.relative_to(ROOT).parts[0], shown


def test_the_table_of_bounds_is_complete_and_true() -> None:
    listed = set(ROW.findall(TABLE.read_text(encoding="utf-8").partition("## Bounds")[2]))

    assert sorted(set(bounds()) - listed) == []
    assert sorted(listed - set(bounds())) == []
