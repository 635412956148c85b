"""The notification protocol of systemd: ready, reloading, stopping, a status line, and the watchdog."""

import os
import socket
import time
from contextlib import suppress
from typing import Final

from reaper.policy.text import printable

_MICROSECONDS: Final = 1_000_000


class Systemd:
    """Notifies the service manager; does nothing without one."""

    def __init__(self, address: str | None = None, watchdog_usec: str | None = None) -> None:
        self._address = address
        self.watchdog_seconds = int(watchdog_usec) / _MICROSECONDS if watchdog_usec else None
        """The longest time between two calls of `alive`; then the manager restarts the service."""

    @classmethod
    def from_environment(cls) -> "Systemd":
        """The manager that started this process; its variables are removed, they are not for children."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        usec, pid = os.environ.pop("WATCHDOG_USEC", None), os.environ.pop("WATCHDOG_PID", None)
        return cls(address, usec if pid in {None, str(os.getpid())} else None)

    def ready(self) -> None:
        """Report that the start, or a reload, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that a reload has begun."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={printable(' '.join(text.split()))}")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is in the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # A manager that does not read must neither end the service nor block it.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
        ):
            manager.setblocking(False)  # noqa: FBT003 (its only parameter)
            manager.sendto(message.encode(), address)
