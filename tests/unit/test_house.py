"""The house keeps its shape: plain words, a kernel that can be read in an afternoon, a map that is true."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import reaper

ROOT: Final = Path(reaper.__file__).parent
MODULES: Final = sorted(ROOT.rglob("*.py"))
PAGES: Final = sorted([*ROOT.rglob("*.html"), *ROOT.rglob("*.sql"), *ROOT.rglob("*.md")])
KERNEL_LINES: Final = 3_000
FILE_LINES: Final = 450

FORBIDDEN: Final = re.compile(
    r"\b(whom|whoever|whomever|nobody|somebody|anybody|everybody|what becomes of|what came of|"
    r"so many|so much|so long|so often|is to be|are to be|mend(s|ed|ing)?|condemn\w*|spare[sd]?|sparing|"
    r"rehears\w*|told|heard|fate[sd]?|verdicts?|lookout|bulletin|chronicle|annals|tally|tallies|"
    r"unmeant|shields?)\b",
    re.IGNORECASE,
)
"""Words of the dialect in which this code was once written, beside which DESIGN names a plain one."""


def docstrings(tree: ast.Module) -> set[int]:
    """The lines at which docstrings begin; those of attributes too."""
    return {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Docstrings, comments and sentences of a module: a string without a space is a name."""
    source = path.read_text(encoding="utf-8")
    known = docstrings(ast.parse(source))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_string = token.type == tokenize.STRING or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1)
        if token.type == tokenize.COMMENT or (is_string and (token.start[0] in known or " " in token.string)):
            yield token.start[0], token.string


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_comments_and_messages_use_plain_words(path: Path) -> None:
    found = [
        f"{name_of(path)}:{line}: {word[0]!r} in {text.strip()[:80]!r}"
        for line, text in texts(path)
        for word in FORBIDDEN.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_pages_and_statements_use_plain_words(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    assert [f"{line}: {word[0]}" for line, text in lines for word in FORBIDDEN.finditer(text)] == []


def test_the_kernel_can_be_read_in_an_afternoon() -> None:
    assert reaper.KERNEL
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in reaper.KERNEL}
    assert sum(lines.values()) <= KERNEL_LINES, lines


def test_the_map_names_every_package_and_every_file_of_the_kernel() -> None:
    text = reaper.__doc__ or ""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert [name for name in sorted(packages) if not re.search(rf"^    {name}\s", text, re.MULTILINE)] == []
    assert [name for name in reaper.KERNEL if name not in text] == []


def test_no_class_name_means_two_things() -> None:
    names = Counter(
        node.name.lstrip("_")
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES} == {}
