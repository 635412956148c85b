"""What was needed for a moment is given back to the host."""

from os import getpid

from reaper.telemetry.http.page import give_back
from tests.lab.world.observe import memory

PIECE = 65_536
MIB = 1_048_576


def test_what_is_free_amid_what_is_still_needed_is_given_back() -> None:
    pieces = [bytes([number % 256]) * PIECE for number in range(64 * MIB // PIECE)]
    last = pieces.pop()  # above all others in the heap: the library gives back by itself what lies above it
    pieces.clear()
    before = memory(getpid()).rss

    give_back()

    assert before - memory(getpid()).rss > 32
    assert len(last) == PIECE
