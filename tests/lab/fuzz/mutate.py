"""Small changes to texts that have a form: what a search that only turns bits would take days to meet."""

import re
from collections.abc import Sequence
from random import Random
from typing import Final

_TOKENS: Final = re.compile(rb"\w+|\s+|[^\w\s]")
NASTY: Final = (
    *rb"""0 -1 1e999 99999999999999999999 1_0 0x1f 010 1:30 .inf NaN null true ~""".split(),
    *rb""" "" '' [] {} [ { ] } : , " ' \ """.split(),
    *rb"&a *a << !x - ? | # --- % \u0000 \ud800 {0.__class__} [red] =1+1 9999-12-31T23:59:59Z".split(),
    *(b"\n", b"\r", b"\t", b"- ", b"? ", b": ", b"\x1b[2J", b"\x7f", b"\xff", b"\xc3", b"\xc2\x85"),
    *(b"\xe2\x80\xae", b"\xef\xbb\xbf", b"0001-01-01T00:00:00+14:00", b"-9223372036854775808us"),
)
_FEW: Final = 4
_LONGEST: Final = 4096


def mutated(data: bytes, words: Sequence[bytes], random: Random) -> bytes:
    """The same with a few of its tokens replaced, doubled, moved or taken out."""
    tokens: list[bytes] = _TOKENS.findall(data) or [b""]
    for _ in range(random.randint(1, _FEW)):
        at, other = random.randrange(len(tokens)), random.randrange(len(tokens))
        match random.randrange(5):
            case 0:
                tokens[at] = random.choice(NASTY)
            case 1:
                tokens[at] = random.choice(words or NASTY)
            case 2:
                tokens[at] = tokens[other]
            case 3:
                low, high = sorted((at, other))
                tokens[at:at] = tokens[low : min(high, low + random.randint(1, 40))]
            case _:
                del tokens[at : at + random.randint(1, 6)]
                tokens = tokens or [b""]
    return b"".join(tokens)[:_LONGEST]
