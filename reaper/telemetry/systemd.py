"""What systemd is told, when it asked: ready, reloading, stopping, a status for people, and that we live."""

import os
import socket
import time
from contextlib import suppress
from typing import Final

from reaper.policy.text import plain

_MICRO: Final = 1_000_000


class Systemd:
    """Speaks to the service manager; without one it is silent."""

    def __init__(self, address: str | None = None, watchdog_usec: str | None = None) -> None:
        self._address = address
        self.watchdog_seconds = int(watchdog_usec) / _MICRO if watchdog_usec else None
        """How long we may be silent before we are replaced."""

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    @classmethod
    def from_environment(cls) -> "Systemd":
        """The manager that started us, if any; what it said is for us alone, not for children."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        usec, pid = os.environ.pop("WATCHDOG_USEC", None), os.environ.pop("WATCHDOG_PID", None)
        return cls(address, usec if pid in {None, str(os.getpid())} else None)

    def ready(self) -> None:
        """The start, or a reload, has come to its end."""
        self._say("READY=1")

    def reloading(self) -> None:
        """A reload has begun."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={plain(' '.join(text.split()))}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._say("WATCHDOG=1")

    def _say(self, message: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is in the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that does not listen is no reason to end, nor to wait.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
        ):
            manager.setblocking(False)  # noqa: FBT003 (its only parameter)
            manager.sendto(message.encode(), address)
