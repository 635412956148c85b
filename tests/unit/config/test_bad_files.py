"""One small file per mistake: what it says of itself in its first lines is all that is told about it.

To add one, put a file into `bad/` (refused) or `doubtful/` (taken, with warnings) that begins with a line
`# expect: LINE:COLUMN: WHERE: WHAT; WHAT TO WRITE INSTEAD` for each message. What NAME.yaml names
beside itself stands in `NAME.d/`, where each list of servers says what is told about that list.
"""

from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, load

HERE = Path(__file__).parent
MARK = b"# expect: "


def files(folder: str) -> list[object]:
    return [pytest.param(path, id=path.stem) for path in sorted((HERE / folder).glob("*.yaml"))]


def expected(path: Path) -> list[str]:
    told = []
    for file in (*sorted(path.with_suffix(".d").glob("*.yaml")), path):
        lines = [line.removeprefix(MARK) for line in file.read_bytes().splitlines() if line.startswith(MARK)]
        told += [f"{file}:{line.decode()}" for line in lines]
    return told


@pytest.mark.parametrize("path", files("bad"))
def test_a_bad_file_is_refused_with_these_words(path: Path) -> None:
    with pytest.raises(BadPolicyFile) as refused:
        load(path)
    assert str(refused.value).splitlines() == expected(path) != []


@pytest.mark.parametrize("path", files("doubtful"))
def test_a_doubtful_file_is_taken_with_these_warnings(path: Path) -> None:
    assert [str(warning) for warning in load(path).warnings] == expected(path) != []


def test_no_message_repeats_a_secret() -> None:
    for path in (HERE / "bad").glob("*.yaml"):
        assert "hunter2" not in "\n".join(expected(path))


def test_no_message_tells_of_a_fix_that_is_itself_refused() -> None:
    """The commonest advice, taken: each of these was written instead of a mistake above."""
    load(HERE / "mended.yaml")
