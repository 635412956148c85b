"""A glob says the same as a matcher that was written from its description, and takes no time to say it."""

from typing import Final

from reaper.config.errors import BadValue
from reaper.config.patterns import application_glob
from tests.lab.fuzz.feed import Feed

SEEDS: Final = (
    b"\3*a*aab",
    b"\x09*a*a*a*a*aaaaaaaaaaaaaaaaaaaaaab",
    b"\7app_[!x]app_y",
    b"\5[a-c]b",
    b"\5[]]?*]xyz",
    b"\6[^a-b]^",
    b"\x08[--0][a\\\\",
)
WORDS: Final = (*rb"* ? [ ] ! - a [a-c] [!a] []] \ ^ a*a".split(), b"\n")


def check(data: bytes) -> None:
    feed = Feed(data)
    pattern = feed.piece().decode("utf-8", "replace")
    name = feed.rest().decode("utf-8", "replace")
    try:
        glob = application_glob(pattern)
    except BadValue:
        return
    assert glob.matches(name) == _fits(pattern, name)


def _fits(pattern: str, name: str) -> bool:
    """Whether they fit, by all the places of the name that each step of the pattern can reach."""
    reached = {0}
    for step in _steps(pattern):
        if step == "*":
            reached = set(range(min(reached), len(name) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(name) and _holds(step, name[at])}
    return len(name) in reached


def _steps(pattern: str) -> list[str]:
    steps: list[str] = []
    at = 0
    while at < len(pattern):
        end = at
        if pattern[at] == "[":
            begin = at + (2 if pattern[at + 1] == "!" else 1)
            end = pattern.index("]", begin + 1)
        steps.append(pattern[at : end + 1])
        at = end + 1
    return steps


def _holds(step: str, letter: str) -> bool:
    if len(step) == 1:
        return step in ("?", letter)
    inside = step[1:-1]
    denied = inside.startswith("!")
    return _is_among(letter, inside[denied:]) != denied


def _is_among(letter: str, inside: str) -> bool:
    at = 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            if inside[at] <= letter <= inside[at + 2]:
                return True
            at += 3
        else:
            if inside[at] == letter:
                return True
            at += 1
    return False
