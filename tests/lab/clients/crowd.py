"""Many idle sessions; each costs this process one socket, and nothing while it is idle."""

import resource
import socket
from collections.abc import Sequence
from typing import Final, Self

from .session import HEAD, query, startup

_READY: Final = HEAD.pack(b"Z", 5)
_LAST_QUERY: Final = f"SELECT '{'a query of an ordinary length, ' * 7}'"
_OTHER_FILES: Final = 200
_NAMES: Final = 20


class IdleCrowd:
    """Idle sessions; used from one thread and outside of event loops."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._sockets)

    def close(self, count: int | None = None) -> None:
        """Close the oldest of them, or all."""
        for each in self._sockets[:count]:
            each.close()
        del self._sockets[:count]

    def open(self, count: int, roles: Sequence[str], *, new: int | None = None) -> None:
        """Open more with these roles in turn, with few names, or with new ones from this number on."""
        _allow_files(len(self._sockets) + count + _OTHER_FILES)
        for number in range(count):
            opened = socket.create_connection(("127.0.0.1", self._port))
            self._sockets.append(opened)
            name = f"web-{number % _NAMES}" if new is None else f"job-{new + number}"
            opened.sendall(startup(roles[number % len(roles)], "postgres", name))
            _wait(opened)
            opened.sendall(query(_LAST_QUERY))
            _wait(opened)

    def run(self, *queries: str, since: int = 0) -> None:
        """Run the queries in turn in the sessions from this one on."""
        chosen = self._sockets[since:]
        for number, each in enumerate(chosen):
            each.sendall(query(queries[number % len(queries)] if queries else _LAST_QUERY))
        for each in chosen:
            _wait(each)


def _wait(opened: socket.socket) -> None:
    """Read until the session is idle."""
    answer = b""
    while answer[-6:-1] != _READY:
        more = opened.recv(65_536)
        if not more:
            raise ConnectionRefusedError(answer.decode("ascii", "replace"))
        answer += more


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
