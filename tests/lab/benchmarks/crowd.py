"""A crowd of idle sessions that cost this process a socket each, and nothing while they are idle."""

import resource
import socket
import struct
from collections.abc import Sequence
from typing import Final, Self

_PROTOCOL: Final = 196_608
_HEAD: Final = struct.Struct("!cI")
_READY: Final = _HEAD.pack(b"Z", 5)
_LAST_QUERY: Final = f"SELECT '{'a query of an ordinary length, ' * 7}'"
_ROOM: Final = 200


class Crowd:
    """Sessions that have run one query each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()

    def open(self, count: int, *, roles: Sequence[str], applications: int, work: Sequence[str] = ()) -> None:
        """So many more of them, of these roles and of so many applications in turn, after this work."""
        _allow(len(self._sockets) + count + _ROOM)
        for number in range(count):
            role = roles[number % len(roles)]
            self._sockets.append(_session(self._port, role, f"web-{number % applications}", work))

    def touch(self, *, but: int) -> None:
        """Let all of them run a query, but for the first."""
        for each in self._sockets[but:]:
            _ask(each, _LAST_QUERY)
        for each in self._sockets[but:]:
            _wait(each)


def _session(port: int, role: str, application: str, work: Sequence[str]) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port))
    said = {"user": role, "database": "postgres", "application_name": application}
    words = b"".join(f"{key}\0{value}\0".encode() for key, value in said.items()) + b"\0"
    opened.sendall(struct.pack("!II", 8 + len(words), _PROTOCOL) + words)
    _wait(opened)
    for query in (*work, _LAST_QUERY):
        _ask(opened, query)
        _wait(opened)
    return opened


def _ask(opened: socket.socket, query: str) -> None:
    told = f"{query}\0".encode()
    opened.sendall(_HEAD.pack(b"Q", 4 + len(told)) + told)


def _wait(opened: socket.socket) -> None:
    """Read until it is idle."""
    heard = b""
    while heard[-6:-1] != _READY:
        more = opened.recv(65_536)
        if not more:
            raise ConnectionRefusedError(heard.decode("ascii", "replace"))
        heard += more


def _allow(files: int) -> None:
    """Let this process have so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
