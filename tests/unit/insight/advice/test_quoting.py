"""Names in SQL: whatever is in them, they stay names, and can be looked at."""

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.insight.advice.finding import identifier, literal
from tests.unit.policy.hostile import NAMES

names: Final = (
    st.sampled_from(NAMES) | st.text(max_size=20) | st.text("\"'\\U&\n\x1b;-- é\u202e", max_size=12)
)
_ESCAPE: Final = re.compile(r"\\(?:\\|\+([0-9A-F]{6})|([0-9A-F]{4}))")


def read_back(spelled: str, quote: str) -> str:
    """What the server would understand, by the rules of its manual."""
    escaped = spelled.startswith("U&")
    body = spelled.removeprefix("U&")
    assert body[0] == quote
    assert body[-1] == quote
    inner = body[1:-1]
    assert quote not in inner.replace(2 * quote, "")
    text = inner.replace(2 * quote, quote)
    if not escaped:
        return text
    return _ESCAPE.sub(lambda found: chr(int(found[1] or found[2] or "5C", 16)), text)


@given(names)
def test_a_name_is_read_back_as_it_was_and_cannot_move_a_terminal(name: str) -> None:
    spelled = identifier(name)

    if spelled is not None:
        assert read_back(spelled, '"') == name
        assert spelled.isprintable()


@given(names)
def test_a_text_is_read_back_as_it_was_and_cannot_move_a_terminal(text: str) -> None:
    spelled = literal(text)

    if spelled is not None:
        assert read_back(spelled, "'") == text
        assert spelled.isprintable()


@pytest.mark.parametrize("name", [None, "", "a\0b", "\ud800", "x" * 64, "é" * 32])
def test_what_no_name_can_be_is_not_spelled(name: str | None) -> None:
    assert identifier(name) is None


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31, "select", 'a"b', "two\nlines"])
def test_every_name_that_a_server_can_have_is_spelled(name: str) -> None:
    assert identifier(name) is not None
