"""Any bytes give Settings or messages: never a traceback, never an endless list."""

import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reaper.config import BadPolicyFile, Mistake, checks, load, read
from reaper.config.errors import MOST_MISTAKES
from reaper.config.model import json_schema

LEAST = "version: 1\npolicies: [{name: a, match: {state: [idle], idle_for: 1m}}]\n"
VALID = (Path(__file__).parent / "every-key.yaml").read_text()
WITH_A_LIST = f"servers_from: servers.yaml\n{LEAST}"
URL = "https://hooks.example.com/hunter2"
HOOK = f"name: ops, webhook: {URL}"
SECRETIVE = f"notify: [{{{HOOK}}}]\n{LEAST}"
SCRAPS = [
    *("*", "&", "!", "!!int", "<<: *m", "? ", ": ", "- ", "{", "}", "[", "]", "|", ">", "'", '"', "%", "@"),
    *("\t", "\n", "\r", "\0", "\x85", "\u2028", "\u202e", "\x1b[2J", "\ufeff", '"\\ud800"', "\\"),
    *("~", "null", "no", "off", "1:30", "010", ".inf", ".nan", "2024-01-01", "-1", "99999999999", "0.8", "é"),
    *("---\n", "...\n", "%YAML 1.1\n", "# ", "*m", "&m", "*", "active", "keep:", "policies:", "match:"),
]


def judge(data: bytes) -> tuple[Mistake, ...]:
    try:
        return read(data, file="x\n\x1b").warnings
    except BadPolicyFile as error:
        return error.mistakes or pytest.fail("refused without a mistake")


def refused(path: Path) -> tuple[Mistake, ...]:
    try:
        load(path)
    except BadPolicyFile as error:
        return error.mistakes
    return ()


def answer(data: bytes) -> str:
    """The messages about a file, each of which must be one printable line with a correction."""
    mistakes = judge(data)
    for mistake in mistakes:
        line = str(mistake)
        assert line.isprintable()
        assert line.startswith(r"x\n\x1b:")
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert len(line) < 2_000
        assert mistake.where
        assert mistake.what
        assert mistake.instead
    return "\n".join(map(str, mistakes))


@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@example(b"\xff\xfev\x00e\x00")
@example(b"%YAML " + b"9" * 5000 + b".1\n---\n")
@example(b"%TAG ! !\n---\n!x y\n")
@example(b'"\\UFFFFFFFF"')
@example(b"? [a]\n: b\n? {b: c}\n: d\n")
@example(b"? ? ? a\n")
@example(b"\xef\xbb\xbf")
@example(b"!!python/object/apply:os.system [id]")
def test_any_bytes_get_an_answer(data: bytes) -> None:
    answer(data)


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    text = VALID
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + draw(st.sampled_from(SCRAPS) | st.text(max_size=4)) + text[end:]
    return text


@given(spoilt())
def test_a_good_file_spoilt_anywhere_gets_an_answer(text: str) -> None:
    answer(text.encode("utf-8", "surrogatepass"))


scalars = st.sampled_from(
    [
        None,
        True,
        1,
        0.5,
        *("", "*", "a.yaml", "http://a", "HOME", "idle", "app[", "10m", "80%", "\u202e", "a\nb"),
    ]
)
KEYS = [
    *(key for part in json_schema()["$defs"].values() for key in part["properties"]),
    "[key]",
    "idel",
    "\x1b",
]
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(trees)
def test_any_shape_gets_an_answer(tree: object) -> None:
    answer(json.dumps(tree).encode())


@given(trees)
def test_any_list_of_servers_gets_an_answer(tree: object) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "servers.yaml").write_text(json.dumps(tree), encoding="utf-8")
        (Path(folder) / "policies.yaml").write_text(WITH_A_LIST, encoding="utf-8")
        mistakes = refused(Path(folder) / "policies.yaml")
    assert {Path(mistake.file).name for mistake in mistakes} <= {"servers.yaml"}
    assert mistakes or isinstance(tree, list)


OTHER_KEYS = ["webhook:", "web: ", "on: ", "every: ", "webhook_env: ", "webhook_file: ", "!", "{a: b}: "]
OTHER_MAPS = [
    "servers: [{name: ops, labels: ",
    "servers: [{name: ops, dsn: ",
    "protect: [{role: ",
    "interval: [{a: ",
]
SLIPS = [
    *(("webhook: ", instead) for instead in OTHER_KEYS),
    *(("notify: [{name: ops, webhook: ", instead) for instead in OTHER_MAPS),
    *[("webhook: https://", "on: "), ("webhook: https://", "webhook: ")],
    *[("name: ops, webhook: ", ""), ("name: ops, webhook: ", "name: ")],
    *((old, new) for old in (f"[{{{HOOK}}}]", f"{{{HOOK}}}") for new in (URL, URL.removeprefix("https://"))),
]


@pytest.mark.parametrize(("slip", "instead"), SLIPS)
def test_no_message_repeats_a_url_at_a_wrong_key(slip: str, instead: str) -> None:
    assert slip in SECRETIVE
    told = answer(SECRETIVE.replace(slip, instead).encode())
    assert told
    assert "hunter2" not in told


@given(st.text(alphabet=st.sampled_from("[]!^-:.=&|~*?\\a9z"), max_size=12))
def test_any_pattern_gets_an_answer_without_a_warning_of_python(pattern: str) -> None:
    match = f"{{state: [idle], idle_for: 1m, role: [{json.dumps(pattern)}]}}"
    answer(f"version: 1\npolicies: [{{name: a, match: {match}}}]".encode())


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: ["])
def test_endless_nesting_is_refused_where_it_becomes_too_deep(opening: str) -> None:
    assert "nested deeper than 40 levels" in answer(f"a: {opening * 100_000}".encode()) or opening in (
        "- ",
        "? ",
    )
    assert "nested deeper than 40 levels" in answer((opening * 100_000).encode())


def test_aliases_are_counted_where_they_are_used() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 36))]
    assert "more than 100,000 values" in answer("\n".join(lines).encode())


def test_a_deep_alias_counts_where_it_is_used() -> None:
    deep = "[" * 30 + "]" * 30
    assert "nested deeper than 40 levels" in answer(f"a: &a {deep}\nb: {'[' * 15}*a{']' * 15}".encode())


def test_a_file_of_many_values_is_refused() -> None:
    assert "more than 100,000 values" in answer(b"- a\n" * 100_001)


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    assert "larger than 10 MiB" in answer(b"#" * (10 * 1024 * 1024 + 1))


def test_a_generated_list_is_refused_by_its_length() -> None:
    match = f"{{state: [idle], idle_for: 1m, role: [{', '.join(f'r{n}' for n in range(1_001))}]}}"
    assert "policies[0].match.role: more than 1000 entries" in answer(
        f"version: 1\npolicies: [{{name: a, match: {match}}}]".encode()
    )


def test_a_long_key_or_value_is_cut_short_in_its_message() -> None:
    answer(("k" * 10_000 + ": 1\nversion: " + "v" * 10_000).encode())


def written(text: bytes) -> int:
    """The read end of a pipe to which a thread writes this text."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as stream:
            stream.write(text)

    Thread(target=write, daemon=True).start()
    return reading


def test_a_pipe_without_a_writer_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "policies.yaml")
    (message,) = map(str, refused(tmp_path / "policies.yaml"))
    assert "policies.yaml:1:1: file: the file is empty" in message


def test_a_pipe_is_read_to_its_end() -> None:
    reading = written(LEAST.encode() + b"#" * 1_000_000 + b"\n")
    assert load(Path(f"/dev/fd/{reading}")).rules.policies[0].name == "a"
    os.close(reading)


def test_an_endless_pipe_is_refused() -> None:
    reading = written(b"#" * 10_700_000)
    assert "larger than 10 MiB" in str(refused(Path(f"/dev/fd/{reading}")))
    os.close(reading)


def test_thousands_of_mistakes_are_not_all_reported() -> None:
    with pytest.raises(BadPolicyFile) as bad:
        read("".join(f"key{number}: 1\n" for number in range(4_000)).encode(), file="x")
    *told, last = bad.value.mistakes
    assert len(told) == MOST_MISTAKES
    assert "2,502 more mistakes, here and below; correct those above first" in str(last)
    assert last.line == told[-1].line + 1


def test_thousands_of_patterns_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "covers", lambda *_: pytest.fail("compared"))
    roles = ", ".join(f"'a{number}*'" for number in range(40))
    policies = "\n".join(
        f"  - {{name: p{number}, match: {{state: [idle], idle_for: 1m, role: [{roles}]}}}}"
        for number in range(60)
    )
    settings = read(f"version: 1\npolicies:\n{policies}\n".encode(), file="x")
    assert len(settings.rules.policies) == 60
    assert settings.warnings == ()


def test_a_window_of_a_thousand_days_is_refused() -> None:
    text = LEAST.replace("1m}", f"1m}}, during: '{'Mon,' * 1_000}Tue 08:00-09:00'")
    with pytest.raises(BadPolicyFile, match=r"policies\[0\].during: .* is not a time window"):
        read(text.encode(), file="x")


@pytest.mark.parametrize("piece", ["//:", "//:a?", "://", "//a:b"])
def test_a_connection_string_of_slashes_and_colons_is_checked_at_once(piece: str) -> None:
    server = f'servers: [{{name: a, dsn: "{piece * 100_000}"}}]\n'
    with pytest.raises(BadPolicyFile, match=r"libpq cannot read this DSN"):
        read(f"{LEAST}{server}".encode(), file="x")
