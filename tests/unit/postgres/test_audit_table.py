"""The columns of a line in the table: everything that fits, and nothing that cannot be stored."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.audit.events import EVENTS, OUTCOME
from reaper.postgres.audit_table import TOO_LARGE, table_row

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text('a0 "\\{\0\n\ud800\udc00\u00fc\U0001f600'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=5,
)
COLUMNS = {*table_row(b"", source="")} - {"digest", "source", "line"}
LINES = st.dictionaries(st.sampled_from([*sorted(COLUMNS), "source", "x"]), ANYTHING).map(
    lambda fields: json.dumps(fields).encode()
)


@given(st.binary() | LINES)
def test_the_row_of_any_line_can_be_stored_and_has_the_digest_of_what_is_stored(
    line: bytes,
) -> None:
    row = table_row(line, source="here")

    for value in row.values():
        if isinstance(value, str):
            assert "\0" not in value
            value.encode("utf-8")
    assert row["digest"] == hashlib.sha256(str(row["line"]).encode()).digest()
    for name, below in (("seq", TOO_LARGE["bigint"]), ("pid", TOO_LARGE["integer"])):
        number = row[name]
        assert number is None or (isinstance(number, int) and -below <= number < below)


def test_an_entry_is_stored_as_it_is_in_the_file() -> None:
    line = json.dumps(
        {"event": OUTCOME, "role": "m\u00fcller", "pid": 7, "time": "2026-01-31T10:00:00Z"}
    ).encode()
    row = table_row(line, source="here")

    assert row["line"] == line.decode()
    assert row["digest"] == hashlib.sha256(line).digest()
    assert (row["event"], row["role"], row["pid"], row["seq"]) == (OUTCOME, "m\u00fcller", 7, None)
    assert str(row["time"]) == "2026-01-31 10:00:00+00:00"


@pytest.mark.parametrize("line", [b"", b"torn {", b"[]", b"1", b"[" * 100_000, b'{"pid": true}', b"\xff\0"])
def test_a_line_that_is_no_event_keeps_its_text_and_has_no_columns(line: bytes) -> None:
    row = table_row(line, source="here")

    assert {name for name, value in row.items() if value is not None} == {"digest", "source", "line"}


def test_every_column_is_a_field_of_the_audit_log() -> None:
    fields = {name for names in EVENTS.values() for name in names}

    assert fields >= COLUMNS
