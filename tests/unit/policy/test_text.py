"""Whatever a client wrote is one harmless line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.policy.text import printable


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (None, ""),
        ("", ""),
        ("web-1", "web-1"),
        ("café 注文 🚚", "café 注文 🚚"),
        (42, "42"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028line\u2029", "\\u2028line\\u2029"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_seen_is_what_was_written(written: object, shown: str) -> None:
    assert printable(written) == shown


@given(st.text(st.characters()))
def test_nothing_that_comes_out_moves_a_cursor_or_breaks_an_encoding(written: str) -> None:
    shown = printable(written)

    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()
