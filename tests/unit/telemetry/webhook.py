"""A webhook on a real socket, which answers as a test needs it, or not at all."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext


@dataclass(slots=True)
class Webhook:
    """The messages that it got, and its answers."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    """The next statuses; then 200."""
    bodies: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    types: list[str | None] = field(default_factory=list)
    requested: threading.Event = field(default_factory=threading.Event)
    """Set when the first message has arrived."""
    opened: threading.Event = field(default_factory=threading.Event)
    """Set to let it answer."""
    location: str = "/elsewhere"
    """The target of a redirect."""
    gushes: bool = False
    """The body of the answer never ends."""
    drips: bool = False
    """Before `opened`, it sends an endless header letter by letter."""

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]

    @property
    def lines(self) -> list[list[str]]:
        """The lines of each message, without the fences."""
        return [text.split("\n")[1:-1] for text in self.texts]


def gush(write: Callable[[bytes], object]) -> None:
    """Write until the client disconnects."""
    with suppress(ConnectionError):
        while True:
            write(b"x" * 65_536)


@contextmanager
def webhook(certified: SSLContext | None = None) -> Iterator[Webhook]:
    """A webhook; with a certificate it uses TLS."""
    hook = Webhook()
    hook.opened.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            hook.paths.append(self.path)
            hook.types.append(self.headers["content-type"])
            hook.bodies.append(json.loads(self.rfile.read(size)))
            hook.requested.set()
            if hook.drips:
                self.drip()
            hook.opened.wait()
            status = hook.answers.pop(0) if hook.answers else 200
            self.send_response(status)
            if status in {301, 302, 303, 307, 308}:
                self.send_header("location", hook.location)
            self.end_headers()
            if hook.gushes:
                gush(self.wfile.write)

        def drip(self) -> None:
            with suppress(ConnectionError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
                while not hook.opened.wait(0.01):
                    self.wfile.write(b"x")

        def do_GET(self) -> None:
            hook.paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certified:
        server.socket = certified.wrap_socket(server.socket, server_side=True)
    hook.url = (
        f"{'https' if certified else 'http'}://127.0.0.1:{server.server_port}/services/T0/B0/verysecrettoken"
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        hook.opened.set()
        server.shutdown()
        thread.join()
        server.server_close()
