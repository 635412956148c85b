"""Where a server can live: a folder and a port."""

import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reaper.demo.binaries import Account, EmbeddedServerError

# Below the ports that clients are given, so that nobody's outgoing connection sits on ours.
_PORTS: Final = range(20_000, 32_768)
_PORT_TRIES: Final = 20
# 107 bytes on Linux, 103 on macOS.
_SOCKET_PATH_LIMIT: Final = 103


def make_folder(parent: Path | None, account: Account) -> Path:
    """A new folder that the account can reach and whose socket path is short enough."""
    # The last two are where a private or an overlong TMPDIR cannot follow.
    usual = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108
    for place in usual if parent is None else (parent,):
        try:
            folder = Path(tempfile.mkdtemp(prefix="reaper-pg-", dir=place))
        except OSError:
            continue
        folder.chmod(0o711)
        longest = len(str(folder / "socket" / ".s.PGSQL.65535"))
        if longest <= _SOCKET_PATH_LIMIT and account.can_enter(folder):
            return folder
        folder.rmdir()
    where = " or ".join(map(str, dict.fromkeys(usual))) if parent is None else str(parent)
    raise EmbeddedServerError(what=f"no folder for a server (and its socket) can be made in {where}")


def free_ports() -> Iterator[int]:
    """Ports on 127.0.0.1 that are free at this moment; somebody else may be faster."""
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
