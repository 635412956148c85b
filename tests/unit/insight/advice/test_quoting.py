"""Names in SQL: whatever is in them, they stay names, and can be looked at."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.advice.finding import identifier, literal
from tests.unit.policy.hostile import NAMES

names: Final = (
    st.sampled_from(NAMES) | st.text(max_size=20) | st.text("\"'\\U&\n\x1b;-- é\u202e", max_size=12)
)


@given(names)
def test_a_quoted_name_is_read_back_unchanged_and_is_printable(name: str) -> None:
    quoted = identifier(name)

    if quoted is not None:
        assert quoted[0] == quoted[-1] == '"'
        assert '"' not in quoted[1:-1].replace('""', "")
        assert quoted[1:-1].replace('""', '"') == name
        assert quoted.isprintable()


@given(names)
def test_a_quoted_text_is_read_back_unchanged_and_is_printable(text: str) -> None:
    quoted = literal(text)

    if quoted is not None:
        inner = quoted.removeprefix("E")[1:-1]
        assert "'" not in inner.replace("''", "")
        # Without E a backslash would depend on a setting of the server.
        assert quoted.startswith("E'" if "\\" in text else "'")
        assert inner.replace("''", "'").replace("\\\\", "\\") == text
        assert quoted.isprintable()


@pytest.mark.parametrize("name", [None, "", "a\0b", "\ud800", "two\nlines", "x" * 64, "é" * 32])
def test_a_name_that_is_not_printable_or_too_long_gets_no_statement(name: str | None) -> None:
    assert identifier(name) is None


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31, "select", 'a"b', "back\\slash"])
def test_every_printable_name_that_a_server_can_have_is_quoted(name: str) -> None:
    assert identifier(name) is not None
