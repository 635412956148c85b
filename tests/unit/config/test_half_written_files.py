"""A file of which only a part has been written says less than it should: of an allowlist, of a role."""

from pathlib import Path

import pytest

from reaper.config import BadPolicyFile, load, read

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
WORDS = "the last line has no line break, as in a half-written file; end it with a line break"


@pytest.mark.parametrize("at", [at for at in range(1, len(WHOLE)) if WHOLE[at - 1] != "\n"])
def test_a_file_that_stops_in_the_middle_of_a_line_is_refused(at: int) -> None:
    with pytest.raises(BadPolicyFile):
        read(WHOLE[:at].encode(), file="x")


def test_the_place_is_told_where_it_stops() -> None:
    with pytest.raises(BadPolicyFile) as refused:
        read(WHOLE[: WHOLE.index("base")].encode(), file="x")
    assert str(refused.value).startswith(f"x:11:15: file: {WORDS}")


def test_what_stands_in_brackets_as_a_whole_shows_by_them_that_it_is_whole() -> None:
    text = '{"version": 1, "policies": [{"name": "a", "match": {"state": ["idle"], "idle_for": "10m"}}]}'
    assert read(text.encode(), file="x").rules.policies


def test_a_list_of_servers_that_stops_in_the_middle_of_a_line_is_refused_as_well(tmp_path: Path) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(f"servers_from: servers.yaml\n{WHOLE}")
    (tmp_path / "servers.yaml").write_text("- name: a\n  dsn: host=db-1 dbname=sh")
    with pytest.raises(BadPolicyFile, match=WORDS):
        load(policies)
