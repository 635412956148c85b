"""On what it was measured, in one line that names no host."""

import os
import platform
import time
from typing import Final

_A_MINUTE: Final = 60.0


class Machine:
    """This machine, and how busy it was from now on."""

    def __init__(self) -> None:
        self._load = os.getloadavg()[0]
        self._began = time.monotonic()

    def described(self, major: int) -> str:
        """`2 cores, x86_64, ...; load 0.4 at the start and 1.3 at the end, 2.1 minutes later`."""
        took = (time.monotonic() - self._began) / _A_MINUTE
        return (
            f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
            f"Python {platform.python_version()}, PostgreSQL {major}; load {self._load:.1f} at the start "
            f"and {os.getloadavg()[0]:.1f} at the end, {took:.1f} minutes later"
        )
