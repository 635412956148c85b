"""How our values become the server's, in its own binary formats: nothing is rounded."""

import struct
from collections.abc import Sequence
from typing import Final

from reaper.policy.spans import SECOND, Instant, Span
from reaper.postgres.decoding import POSTGRES_EPOCH

_DAY: Final = 86_400 * SECOND
_INT4: Final = struct.Struct("!i")
_OID: Final = struct.Struct("!I")
_INT8: Final = struct.Struct("!q")
_ARRAY: Final = struct.Struct("!iiIii")
_ELEMENT: Final = struct.Struct("!ii")
_INT4_OID: Final = 23
_NO_ARRAY: Final = struct.pack("!iiI", 0, 0, _INT4_OID)
_FLOAT8: Final = struct.Struct("!d")
_INTERVAL: Final = struct.Struct("!qii")
_MOST_INT4: Final = 2**31 - 1
_MOST_DAYS: Final = 999_999_999


def int4(number: int | None) -> bytes | None:
    """A whole number; one that is too large for the server is the largest that it knows."""
    return None if number is None else _INT4.pack(min(number, _MOST_INT4))


def int4s(numbers: Sequence[int]) -> bytes:
    """An array of whole numbers."""
    if not numbers:
        return _NO_ARRAY
    head = _ARRAY.pack(1, 0, _INT4_OID, len(numbers), 1)
    return head + b"".join(_ELEMENT.pack(_INT4.size, number) for number in numbers)


def float8(number: float) -> bytes:
    """A number with a fraction."""
    return _FLOAT8.pack(number)


def oid(number: int | None) -> bytes | None:
    """The number of a role or a database."""
    return None if number is None else _OID.pack(number)


def text(words: str | None) -> bytes | None:
    """Words of the server's own, which are the same bytes in every encoding."""
    return None if words is None else words.encode("ascii")


def flag(*, is_set: bool) -> bytes:
    """Yes or no."""
    return b"\x01" if is_set else b"\x00"


def instant(moment: Instant | None) -> bytes | None:
    """A moment, to the microsecond; infinity is just very far."""
    return None if moment is None else _INT8.pack(moment - POSTGRES_EPOCH)


def interval(span: Span | None) -> bytes | None:
    """A length of time; days are counted by themselves, for in microseconds many of them have no room."""
    if span is None:
        return None
    days, rest = divmod(span, _DAY)
    return _INTERVAL.pack(rest, min(days, _MOST_DAYS), 0)
