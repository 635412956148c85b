"""Shared by all targets: values drawn from bytes, small changes of texts, rules, and checks of output."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, TypeVar

from reaper.config import read
from reaper.policy.rules import Rules

T = TypeVar("T")

FINDS: Final = Path(__file__).parent / "finds"
_TOKENS: Final = re.compile(rb"\w+|\s+|[^\w\s]")
_NASTY: Final = (
    *rb"""0 -1 1e999 99999999999999999999 1_0 0x1f 010 1:30 .inf NaN null true ~""".split(),
    *rb""" "" '' [] {} [ { ] } : , " ' \ """.split(),
    *rb"&a *a << !x - ? | # --- % \u0000 \ud800 {0.__class__} [red] =1+1 9999-12-31T23:59:59Z".split(),
    *(b"\n", b"\r", b"\t", b"- ", b"? ", b": ", b"\x1b[2J", b"\x7f", b"\xff", b"\xc3", b"\xc2\x85"),
    *(b"\xe2\x80\xae", b"\xef\xbb\xbf", b"0001-01-01T00:00:00+14:00", b"-9223372036854775808us"),
)
_MAX_CHANGES: Final = 4
_MAX_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, its promise, and where the search begins."""

    name: str
    check: Callable[[bytes], None]
    """Fails, in any way, if the promise is broken for these bytes."""
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    """Tokens of such inputs, if they are text."""

    def finds(self) -> Iterator[bytes]:
        """The inputs that broke it once."""
        for file in sorted((FINDS / self.name).glob("*")):
            yield file.read_bytes()


class Feed:
    """Draws values from bytes; when they are used up, every value is the simplest."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, as many as there are."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, size: int = 1) -> int:
        """A whole number of this many bytes."""
        return int.from_bytes(self.take(size), "big")

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number() % len(choices)]

    def piece(self) -> bytes:
        """Some bytes; their number is drawn first."""
        return self.take(self.number())


def mutated(data: bytes, words: Sequence[bytes], random: Random) -> bytes:
    """The same text with some tokens replaced, doubled, moved or removed."""
    tokens: list[bytes] = _TOKENS.findall(data) or [b""]
    for _ in range(random.randint(1, _MAX_CHANGES)):
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        match random.randrange(5):
            case 0:
                tokens[at] = random.choice(_NASTY)
            case 1:
                tokens[at] = random.choice(words or _NASTY)
            case 2:
                tokens[at] = tokens[other]
            case 3:
                low, high = sorted((at, other))
                tokens[at:at] = tokens[low : min(high, low + random.randint(1, 40))]
            case _:
                del tokens[at : at + random.randint(1, 6)]
                tokens = tokens or [b""]
    return b"".join(tokens)[:_MAX_LENGTH]


def is_line(text: str) -> None:
    """Fail unless it is one line that moves no cursor and changes no reading direction."""
    assert text.isprintable(), ascii(text)


def is_sentence(text: str, *, longest: int = 2_000) -> None:
    """Fail unless it is a line of a readable length."""
    is_line(text)
    assert 0 < len(text) <= longest, len(text)


# Rules that match nearly every session, so that all branches of a decision are reached.
_RULES: Final = b"""\
version: 1
protect: {application: ["*protected*"], client: [10.9.0.0/16, "2001:db8::/32"]}
policies:
  - name: leaked
    mode: enforce
    match: {state: [idle], idle_for: 1ms, role: ["*[!q]*"], client: [local, 10.0.0.0/8, "::/0"]}
    allowlist: {application: ["[a-f]*z?"], role: ["?*q"]}
  - name: kept
    mode: enforce
    match: {state: [idle, idle in transaction], connected_for: 1ms}
    override_protections: [superusers, listeners, backups, poolers, advisory-locks, replication]
    during: ["00:00-24:00", Mon-Fri 20:00-06:00 Europe/Berlin]
    when: {slots_used: 1%}
    keep: {newest: 1, per: [application]}
    safety_limit: none
  - name: capped
    match: {state: [idle in transaction (aborted)], idle_for: 1s}
    max_sessions: {count: 1, per: [role, client]}
  - name: cancelled
    match: {state: [active], running_for: 1s, blocking: true}
    action: cancel
  - name: vacuum
    match: {state: [idle], idle_for: 1s, xmin_age: 5}
"""
RULES: Final[Rules] = read(_RULES, file="rules").rules
