"""Many visitors at once who want nothing good."""

import errno
import socket
from collections.abc import Generator
from contextlib import suppress
from itertools import cycle
from threading import Event, Thread
from typing import Final, Self

CROWD: Final = 1_000


class Siege:
    """Keeps so many connections open, says a little on each again and again, comes back when shown out."""

    def __init__(self, at: str, *ways: tuple[bytes, bytes]) -> None:
        """Each way is what is said first, and then again and again; the crowd is shared out among them."""
        host, _, port = at.rpartition(":")
        self._address = (host, int(port))
        self._ways = ways
        self._enough = Event()
        self._thread = Thread(target=self._besiege, name="siege", daemon=True)
        self.came = 0
        """How many connections were made by now."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _besiege(self) -> None:
        visitors = [self._visitor(*way) for way, _ in zip(cycle(self._ways), range(CROWD), strict=False)]
        while not self._enough.is_set():
            for visitor in visitors:
                next(visitor)
        for visitor in visitors:
            visitor.close()

    def _visitor(self, begin: bytes, more: bytes) -> Generator[None]:
        while True:
            with socket.socket() as link:
                link.setblocking(False)  # noqa: FBT003 (its only way to be called)
                with suppress(BlockingIOError):
                    link.connect(self._address)
                yield
                yield from self._talk(link, begin, more)

    def _talk(self, link: socket.socket, say: bytes, more: bytes) -> Generator[None]:
        heard = False
        while True:
            try:
                link.getpeername()
                self.came += not heard
                heard = True
                if say:
                    link.send(say)
                say = more
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.ENOTCONN}:
                    return  # shown out
                if error.errno == errno.ENOTCONN and link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return
            yield
