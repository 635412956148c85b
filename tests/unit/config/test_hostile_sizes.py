"""Files that would take forever, or all the memory there is: they are bounded, and say so in a sentence."""

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from reaper.config import BadPolicyFile, files, load, read, unreachable
from reaper.config.errors import MOST_MISTAKES

LEAST = "version: 1\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"


def refused(path: Path) -> str:
    with pytest.raises(BadPolicyFile) as bad:
        load(path)
    return str(bad.value)


def written(text: bytes) -> int:
    """The end of a pipe through which this comes, by another thread where it is long."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(text)

    Thread(target=write, daemon=True).start()
    return reading


def test_a_pipe_that_nobody_writes_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIPE_PATIENCE_SECONDS", 0.01)
    os.mkfifo(tmp_path / "policies.yaml")
    told = refused(tmp_path / "policies.yaml")
    assert "policies.yaml:1:1: file: the file cannot be read: It is a pipe, and its writer" in told


def test_what_comes_through_a_pipe_is_read_to_its_end() -> None:
    reading = written(LEAST.encode() + b"#" * 1_000_000 + b"\n")
    assert load(Path(f"/dev/fd/{reading}")).rules.policies[0].name == "a"
    os.close(reading)


def test_a_pipe_without_end_is_not_read_to_its_end() -> None:
    reading = written(b"#" * 10_700_000)
    assert "larger than 10 MiB" in refused(Path(f"/dev/fd/{reading}"))
    os.close(reading)


def test_thousands_of_mistakes_are_not_all_told() -> None:
    with pytest.raises(BadPolicyFile) as bad:
        read("".join(f"key{number}: 1\n" for number in range(4_000)).encode(), file="x")
    *told, last = bad.value.mistakes
    assert len(told) == MOST_MISTAKES
    assert "2,502 more mistakes, here and below; correct those above first" in str(last)
    assert last.line == told[-1].line + 1


def test_lists_that_nearly_hold_each_other_are_compared_as_far_as_patience_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unreachable, "MOST_COMPARISONS", 5_000)
    compared = 0
    holds = unreachable.covers

    def counted(wide: object, narrow: object) -> bool:
        nonlocal compared
        compared += 1
        return holds(wide, narrow)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(unreachable, "covers", counted)
    common = ", ".join(f"'a{number}*'" for number in range(40))
    policies = "\n".join(
        f"  - {{name: p{number}, match: {{state: [idle], idle_for: 1m, role: [{common}, 'x{number}']}}}}"
        for number in range(60)
    )
    settings = read(f"version: 1\npolicies:\n{policies}\n".encode(), file="x")
    assert len(settings.rules.policies) == 60
    assert 0 < compared <= 5_000


def test_a_window_of_a_thousand_days_is_refused() -> None:
    text = LEAST.replace("1m}", f"1m}}, during: '{'Mon,' * 1_000}Tue 08:00-09:00'")
    with pytest.raises(BadPolicyFile, match=r"policies\[0\].during: .* is not a time window"):
        read(text.encode(), file="x")


@pytest.mark.parametrize("piece", ["//:", "//:a?", "://", "//a:b"])
def test_a_connection_string_of_slashes_and_colons_is_looked_through_at_once(piece: str) -> None:
    server = f'servers: [{{name: a, dsn: "{piece * 100_000}"}}]\n'
    with pytest.raises(BadPolicyFile, match=r"libpq cannot read this DSN"):
        read(f"{LEAST}{server}".encode(), file="x")
