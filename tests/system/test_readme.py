"""The commands in README and in the other pages work, and the files that they name exist."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click
import psycopg
import pytest

import reaper
from reaper.cli.app import reaper as root
from reaper.demo.server import EmbeddedServer

from .command import Reaper
from .policies import FILE
from .readme import Block, blocks, whole_policy_file
from .shell import bash, clone, environment

HERE: Final = Path(__file__).parents[2]
CHECKOUT: Final = Path(os.environ.get("REAPER_CHECKOUT", HERE))
README: Final = (HERE / "README.md").read_text(encoding="utf-8")
PAGES: Final = {
    "README": HERE / "README.md",
    "deploy": HERE / "deploy/README.md",
    "tests": HERE / "tests/README.md",
    **{page.stem: page for page in sorted((Path(reaper.__file__).parent / "help").glob("*.md"))},
}
TEXTS: Final = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
ALL: Final = "\n".join(TEXTS.values())
BLOCKS: Final = [block for name, text in TEXTS.items() for block in blocks(text, name)]
CI: Final = ".ci/run"
INSTALL: Final = "reaper demo"


def shell_blocks() -> Iterator[Block]:
    return (block for block in BLOCKS if block.language in {"sh", "bash", "shell", "console"})


def parametrized(*found: Block) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [pytest.param(block, id=block.label) for block in found])


def in_order(reaper: Reaper, text: str) -> str:
    """What a strict check has against a policy file."""
    reaper.write(FILE, whole_policy_file(text))
    done = reaper("check", "--offline", "--strict")
    return "" if done.code == 0 else done.out + done.err


@parametrized(*(block for block in BLOCKS if block.language == "yaml"))
def test_each_policy_file_is_in_order_without_a_warning(offline: Reaper, block: Block) -> None:
    assert in_order(offline, block.text) == ""


@pytest.fixture(scope="module")
def prepared() -> Iterator[Mapping[str, str]]:
    """A server on which README's SQL was run, and libpq's variables for the role that it made."""
    with EmbeddedServer() as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute((HERE / "deploy/sql/record_table.sql").read_bytes())
            for block in BLOCKS:
                if block.language == "sql":
                    admin.execute(block.text.encode())
        yield {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(server.port),
            "PGUSER": "reaper",
            "PGDATABASE": "postgres",
        }


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with README's policy file."""
    text = next(block.text for block in BLOCKS if block.text.startswith("version:"))
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    return tmp_path


def is_for_here(block: Block) -> bool:
    """Whether it neither tests nor installs the project, nor wants a machine of another kind."""
    return CI not in block.text and INSTALL not in block.text and block.needs is None


@parametrized(*(block for block in shell_blocks() if block.needs))
def test_what_another_machine_is_told_to_do_is_bash_and_names_files_that_are_there(
    block: Block, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text(block.script, encoding="utf-8")

    assert bash("bash -n script", folder=tmp_path, environment=dict(os.environ)).code == 0
    named = re.findall(r"(?<![\w./-])(?:deploy/[\w/.-]+|[a-z]+\.(?:lock|yaml))", block.script)
    assert [name for name in named if not (CHECKOUT / name).exists()] == []


@parametrized(*filter(is_for_here, shell_blocks()))
def test_each_command_does_what_it_says(
    block: Block, scratch: Path, prepared: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")

    done = bash(block.script, folder=scratch, environment=environment(home, **prepared))

    assert done.code == block.exit_code, done.out + done.err
    if block.output_matters:
        assert done.out == block.shown


@parametrized(*(block for block in shell_blocks() if INSTALL in block.text))
def test_the_first_minute_works_in_a_fresh_clone_with_an_empty_home(block: Block, tmp_path: Path) -> None:
    folder = clone(CHECKOUT, tmp_path / "clone")

    done = bash(block.script, folder=folder, environment=environment(tmp_path / "home"), patience=600)

    assert done.code == 0, done.out + done.err
    assert done.out


@parametrized(*(block for block in shell_blocks() if CI in block.text))
def test_the_line_that_runs_all_tests_runs_this_one(block: Block) -> None:
    (line,) = block.text.splitlines()
    script = CHECKOUT / CI

    assert line in {CI, f"./{CI}", f"bash {CI}"}
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert re.search(r"^pytest\b", text, re.MULTILINE)
    assert {"tests", "README.md"} <= set(text.split())
    assert bash(f"bash -n {script}", folder=CHECKOUT, environment=dict(os.environ)).code == 0


def test_there_are_two_lines_for_a_fresh_machine() -> None:
    lines = [line for block in shell_blocks() for line in block.text.splitlines()]

    assert len([line for line in lines if INSTALL in line]) == 1
    assert len([line for line in lines if CI in line]) == 1


def test_every_command_is_mentioned_and_none_that_is_not_there() -> None:
    assert set(re.findall(r"`reaper (\w[\w-]*)", README)) == set(root.list_commands(click.Context(root)))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btest_\w+\b(?!\.py)", ALL))))
def test_every_test_that_proves_a_promise_is_there(name: str) -> None:
    written = [
        path for path in (HERE / "tests").rglob("test_*.py") if f"def {name}(" in path.read_text("utf-8")
    ]

    assert written


NAMED: Final = re.compile(r"(?<![\w/-])(?:tests|deploy|reaper)/[\w/.-]+\w")


@pytest.mark.parametrize("path", sorted(set(NAMED.findall(ALL))))
def test_every_file_that_is_named_is_there(path: str) -> None:
    assert (CHECKOUT / path).exists()


LINK: Final = re.compile(r"\]\(([^)#:]*)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_page_and_a_heading(name: str) -> None:
    folder = {"README": CHECKOUT, "deploy": CHECKOUT / "deploy", "tests": CHECKOUT / "tests"}.get(
        name, CHECKOUT / "reaper/help"
    )
    for target, heading in LINK.findall(TEXTS[name]):
        assert (folder / target).exists(), target
        if not heading:
            continue
        text = (folder / target).read_text(encoding="utf-8") if target else TEXTS[name]
        titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert heading in anchors, target


def test_readme_is_short_enough_for_3_a_m() -> None:
    assert len(README.splitlines()) <= 250
    assert len(README.encode()) <= 16 * 1024
