"""Ways to a server that can be cut: packets that vanish, or a silent proxy where nothing can drop them."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from psycopg.conninfo import make_conninfo

from tests.postgres.proxy import Proxy

_OWN_NETWORK: Final = 0x4000_0000
_MOST_LINES: Final = 250


class Line(Protocol):
    """One reaper's way to the server."""

    def through(self, dsn: str) -> str:
        """The way in over this line."""

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""

    def mend(self) -> None:
        """Everything passes again."""


OpenLine = Callable[[], Line]


@contextmanager
def lines(dsn: str, *, dropping: bool) -> Iterator[OpenLine]:
    """Opens lines of one kind to a server."""
    with ExitStack() as stack:
        addresses = (f"127.0.1.{number}" for number in range(1, _MOST_LINES))

        def opened() -> Line:
            return _Dropping(next(addresses)) if dropping else _Deaf(stack.enter_context(Proxy(dsn)))

        yield opened


def move_to_own_network() -> bool:
    """Leave the host's network for one of our own, with loopback only, where packets may be dropped.

    To be called before anything is started, for what runs already stays behind; false when it cannot be had.
    """
    tools = [shutil.which(name) for name in ("ip", "iptables")]
    if os.geteuid() != 0 or not all(tools) or ctypes.CDLL(None).unshare(_OWN_NETWORK) != 0:
        return False
    return _ran("ip", "link", "set", "lo", "up") and _ran("iptables", "--list", "INPUT")


class _Dropping:
    """An address of the server's that packets can be dropped to and from."""

    def __init__(self, address: str) -> None:
        self._address = address

    def through(self, dsn: str) -> str:
        return make_conninfo(dsn, host=self._address)

    def cut(self) -> None:
        self._rules("--insert")

    def mend(self) -> None:
        self._rules("--delete")

    def _rules(self, change: str) -> None:
        for end in ("--source", "--destination"):
            command = ("iptables", "--wait", change, "INPUT", end, self._address, "--jump", "DROP")
            assert _ran(*command), command


class _Deaf:
    """A proxy that goes on to acknowledge what it does not pass on."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def through(self, dsn: str) -> str:
        return self._proxy.dsn(dsn)

    def cut(self) -> None:
        self._proxy.go_deaf()

    def mend(self) -> None:
        self._proxy.restore()


def _ran(program: str, *arguments: str) -> bool:
    found = shutil.which(program)
    if found is None:
        return False
    return subprocess.run([found, *arguments], check=False, capture_output=True).returncode == 0
