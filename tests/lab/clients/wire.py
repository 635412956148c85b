"""The few messages of PostgreSQL's protocol that these clients need; a driver costs ten times as much."""

import struct
from typing import Final

HEAD: Final = struct.Struct("!cI")
TERMINATED: Final = "57P01"
TIMED_OUT: Final = "57P05"
_PROTOCOL: Final = 196_608


def startup(role: str, database: str, application: str) -> bytes:
    """The message that opens a session."""
    options = {"user": role, "database": database, "application_name": application}
    text = b"".join(f"{key}\0{value}\0".encode() for key, value in options.items()) + b"\0"
    return struct.pack("!II", 8 + len(text), _PROTOCOL) + text


def query(sql: str) -> bytes:
    """The message that runs statements."""
    text = f"{sql}\0".encode()
    return HEAD.pack(b"Q", 4 + len(text)) + text


def error_fields(body: bytes) -> dict[bytes, bytes]:
    """The fields of an error message, by their letter."""
    return {field[:1]: field[1:] for field in body.split(b"\0") if field}


def row(body: bytes) -> list[bytes]:
    """The columns of a row."""
    (count,) = struct.unpack_from("!H", body)
    columns, at = [], 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        columns.append(body[at : at + max(length, 0)])
        at += max(length, 0)
    return columns
