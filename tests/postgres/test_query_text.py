"""The shape of a query has no literal and no comment of it."""

import pytest

from reaper.postgres.query_text import QueryText, strip_literals


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("SELECT 'secret' AS a, 42", "SELECT ? AS a, ?"),
        ("a = 'it''s secret' AND b = 'c'", "a = ? AND b = ?"),
        ("a = -1.5e10 OR b = .5 OR c = 1_000", "a = -? OR b = ? OR c = ?"),
        ("date'2020-01-01'", "date?"),
        ("b'101' || X'ff' || n'secret' || U&'secret'", "? || ? || ? || ?"),
        ("$$secret 's$$, $tag$ $$ secret $tag$", "?, ?"),
        ("1$$secret$$", "??"),
        ('"a\'b", \'secret\', "c""d"', '"a\'b", ?, "c""d"'),
        ("SELECT $1, $2::text FROM t1", "SELECT $1, $2::text FROM t1"),
        ("SELECT a$b$, $b$ secret $b$", "SELECT a$b$, ?"),
        ("é'secret', name_e'secret'", "é?, name_e?"),
        ("SELECT 1 -- secret's\n, 'secret'", "SELECT ?  \n, ?"),
        ("SELECT /* it's secret */ 'secret'", "SELECT   ?"),
    ],
)
def test_every_literal_and_comment_is_gone_and_every_name_stays(query: str, shape: str) -> None:
    assert strip_literals(query) == shape


@pytest.mark.parametrize("query", ["'secret", "E'", "$$secret", "$a$secret $$", "/* secret", "-- secret"])
def test_what_was_cut_off_before_its_end_is_a_literal_to_the_end(query: str) -> None:
    assert strip_literals(f"SELECT {query}").strip(" ?") == "SELECT"


@pytest.mark.parametrize(
    "query",
    [
        r"SELECT 'x\', 'secret'",
        r"SELECT E'x\'', 'secret'",
        "SELECT /* a /* b */ it's */ 'secret'",
    ],
)
def test_nothing_is_shown_behind_what_can_be_read_in_two_ways(query: str) -> None:
    assert strip_literals(query) == "SELECT ?..."


@pytest.mark.parametrize("piece", ["'", '"', "$a", "/*", "--", "\\'", "$", "a", "1", "e'", "$a$b"])
def test_no_text_takes_long(piece: str) -> None:
    assert len(strip_literals(piece * 200_000)) <= 800_000


def test_text_is_shown_only_as_far_as_it_was_asked_for() -> None:
    assert QueryText.NONE.shown("SELECT 1") is None
    assert QueryText.SHAPE.shown("SELECT 1") == "SELECT ?"
    assert QueryText.FULL.shown("SELECT 1") == "SELECT 1"
    assert QueryText.FULL.shown(None) is None
