"""What the chains say is held against the reaper, but for what the campaign itself has cut off."""

from typing import Any

from .chains import found_in


def answer(*explained: str | None, more: int = 0) -> dict[str, Any]:
    damages = [
        {"file": "a", "line": 7, "kind": "missing", "sentence": "so many", "explained": why}
        for why in explained
    ]
    return {"records": [{"lines": 4}, {"lines": 3}], "damages": damages, "more_damages": more}


def test_what_the_record_itself_tells_of_is_what_a_blow_leaves() -> None:
    chain = found_in(answer("a:8 tells of it"), name="first", cuts=0)
    assert (chain.lines, chain.told, chain.untold, chain.wrong) == (7, 1, [], ())


def test_what_nobody_tells_of_is_wrong_unless_the_campaign_has_done_it() -> None:
    assert found_in(answer(None), name="first", cuts=0).wrong == ["a:7: missing: so many"]
    assert found_in(answer(None), name="first", cuts=1).wrong == ()
    assert len(found_in(answer(None, None, None), name="first", cuts=1).wrong) == 2
    assert len(found_in(answer(more=2), name="first", cuts=1).wrong) == 1


def test_a_cut_that_was_missed_is_wrong_and_two_that_were_found_as_one_are_not() -> None:
    assert len(found_in(answer(), name="first", cuts=1).wrong) == 1
    assert found_in(answer(None), name="first", cuts=2).wrong == ()
