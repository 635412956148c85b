"""How our values become the server's, in its own binary formats: nothing is rounded."""

import struct
from collections.abc import Sequence
from typing import Final

from reaper.policy.time import SECOND, Instant, Span
from reaper.postgres.decoding import POSTGRES_EPOCH

_DAY: Final = 86_400 * SECOND
_INT4: Final = struct.Struct("!i")
_OID: Final = struct.Struct("!I")
_INT8: Final = struct.Struct("!q")
_ARRAY: Final = struct.Struct("!iiIii")
_LENGTH: Final = struct.Struct("!i")
_EMPTY: Final = struct.Struct("!iiI")
_INT4_OID: Final = 23
_OID_OID: Final = 26
_FLOAT8: Final = struct.Struct("!d")
_INTERVAL: Final = struct.Struct("!qii")
_MOST_INT4: Final = 2**31 - 1
_MOST_DAYS: Final = 999_999_999


def int4(number: int | None) -> bytes | None:
    """A whole number; one that is too large for the server is the largest that it knows."""
    return None if number is None else _INT4.pack(min(number, _MOST_INT4))


def int4s(numbers: Sequence[int]) -> bytes:
    """An array of whole numbers."""
    return _array(_INT4_OID, [_INT4.pack(number) for number in numbers])


def float8(number: float) -> bytes:
    """A number with a fraction."""
    return _FLOAT8.pack(number)


def oid(number: int | None) -> bytes | None:
    """The number of a role or a database."""
    return None if number is None else _OID.pack(number)


def oids(numbers: Sequence[int]) -> bytes:
    """An array of numbers of roles or databases."""
    return _array(_OID_OID, [_OID.pack(number) for number in numbers])


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


def _array(kind: int, elements: Sequence[bytes]) -> bytes:
    if not elements:
        return _EMPTY.pack(0, 0, kind)
    head = _ARRAY.pack(1, 0, kind, len(elements), 1)
    return head + b"".join(_LENGTH.pack(len(element)) + element for element in elements)
