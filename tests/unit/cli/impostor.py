"""A program that answers at the port of a service, on a real socket, but is none."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

Says = Callable[[], Iterator[bytes]]


def once(*parts: bytes) -> Says:
    """Send this and close."""
    return lambda: iter(parts)


def dripping(begins: bytes, goes_on: bytes) -> Says:
    """Send a beginning, and then a little now and then until the client disconnects."""

    def says() -> Iterator[bytes]:
        yield begins
        pause = threading.Event()
        for part in repeat(goes_on):
            pause.wait(0.01)
            yield part

    return says


def answer(body: bytes, status: bytes = b"200 OK") -> Says:
    """Send a correct HTTP answer with this body."""
    return once(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (status, len(body)), body)


@contextmanager
def impostor(says: Says) -> Iterator[str]:
    """Yield the address of such a program."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(65_536)
                for part in says():
                    self.request.sendall(part)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
