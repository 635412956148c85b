"""One small file per mistake: its first lines are the expected messages.

To add one, put a file into `bad/` (refused) or `doubtful/` (accepted, with warnings) that begins with a line
`# expect: LINE:COLUMN: WHERE: WHAT; WHAT TO WRITE INSTEAD` for each message. The files that NAME.yaml names
are in `NAME.d/`, where each list of servers contains its own messages.
"""

from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, Mistake, load, read

HERE = Path(__file__).parent
MARK = b"# expect: "
WHOLE = """\
version: 1
policies:
  - name: leaked
    mode: enforce
    match:
      state: [idle]
      idle_for: 10m   # as long as the longest request
      role: ["app_*"]
    allowlist:
      application:
        - metabase
        - reporting
"""
HALF = "the last line has no line break, as in a half-written file; end it with a line break"


def files(folder: str) -> list[object]:
    return [pytest.param(path, id=path.stem) for path in sorted((HERE / folder).glob("*.yaml"))]


def expected(path: Path) -> list[str]:
    messages = []
    for file in (*sorted(path.with_suffix(".d").glob("*.yaml")), path):
        lines = [line.removeprefix(MARK) for line in file.read_bytes().splitlines() if line.startswith(MARK)]
        messages += [f"{file}:{line.decode()}" for line in lines]
    return messages


def refused(text: str) -> BadPolicyFile:
    with pytest.raises(BadPolicyFile) as bad:
        read(text.encode(), file="x")
    return bad.value


@pytest.mark.parametrize("path", files("bad"))
def test_a_bad_file_is_refused_with_these_messages(path: Path) -> None:
    with pytest.raises(BadPolicyFile) as bad:
        load(path)
    assert str(bad.value).splitlines() == expected(path) != []


@pytest.mark.parametrize("path", files("doubtful"))
def test_a_doubtful_file_is_accepted_with_these_warnings(path: Path) -> None:
    assert [str(warning) for warning in load(path).warnings] == expected(path) != []


def test_no_message_repeats_a_secret() -> None:
    for path in (HERE / "bad").glob("*.yaml"):
        assert "hunter2" not in "\n".join(expected(path))


def test_the_proposed_corrections_are_accepted() -> None:
    load(HERE / "mended.yaml")


def test_a_mistake_that_only_follows_from_another_one_is_not_reported() -> None:
    """A mistyped age is an unknown key; that the policy now lacks an age is no news."""
    bad = refused("version: 1\npolicies:\n  - {name: a, match: {state: [idle], idle_fro: 10m}}\n")
    assert [mistake.what for mistake in bad.mistakes] == ["unknown key 'idle_fro'"]


def test_mistakes_come_in_the_order_of_the_file_with_their_parts() -> None:
    first, second = refused("version: 2\npolicies: []\n").mistakes
    what = "2 is not a known version"
    assert first == Mistake(file="x", line=1, column=10, where="version", what=what, instead="write 1")
    assert (second.line, second.column, second.where) == (2, 11, "policies")


@pytest.mark.parametrize("at", [at for at in range(1, len(WHOLE)) if WHOLE[at - 1] != "\n"])
def test_a_file_that_stops_in_the_middle_of_a_line_is_refused(at: int) -> None:
    refused(WHOLE[:at])


def test_the_place_where_a_file_stops_is_reported() -> None:
    assert str(refused(WHOLE[: WHOLE.index("base")])).startswith(f"x:11:15: file: {HALF}")


def test_a_file_in_brackets_needs_no_line_break() -> None:
    text = '{"version": 1, "policies": [{"name": "a", "match": {"state": ["idle"], "idle_for": "10m"}}]}'
    assert read(text.encode(), file="x").rules.policies


def test_a_list_of_servers_that_stops_in_the_middle_of_a_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(f"servers_from: servers.yaml\n{WHOLE}")
    (tmp_path / "servers.yaml").write_text("- name: a\n  dsn: host=db-1 dbname=sh")
    with pytest.raises(BadPolicyFile, match=HALF):
        load(tmp_path / "policies.yaml")
