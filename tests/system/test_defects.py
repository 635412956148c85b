"""A defect of the reaper is told as one, by a code of its own: it is no answer."""

from pathlib import Path

import pytest

from .command import Reaper


@pytest.mark.parametrize("command", ["run", "check", "schema"])
def test_a_defect_has_an_exit_code_of_its_own_and_is_told_with_where_it_is(
    offline: Reaper, tmp_path: Path, command: str
) -> None:
    (tmp_path / "yaml.py").write_text("raise LookupError('of a \\x1b[2J kind')\n")

    done = offline(command, PYTHONPATH=str(tmp_path))

    assert done.code == 70
    first, *_, what, told = done.err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert what == r"LookupError: of a \x1b[2J kind"
    assert told == "this is a defect of the reaper: please report the lines above"
