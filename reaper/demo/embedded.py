"""A PostgreSQL of our own: one temporary folder, one server on loopback, gone without a trace."""

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Self

from reaper.demo.binaries import Account, EmbeddedServerError, find_binaries, server_account, within_reach
from reaper.demo.keeper import Keeper
from reaper.demo.places import free_ports, make_folder

Mode = Literal["smart", "fast", "immediate"]

DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "max_connections": "60",
        "shared_buffers": "16MB",
        "fsync": "off",
        "log_line_prefix": "%m [%p] %a ",
        "log_connections": "off",
    }
)

_SIGNALS: Final[Mapping[Mode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_START_PATIENCE: Final = 60.0
# Longer than the 5 s after which an immediate shutdown itself kills backends that do not answer.
_STOP_PATIENCE: Final = 8.0
_POLL: Final = 0.01

_PORT_TAKEN: Final = "could not create any TCP/IP sockets"
_LOG_TAIL: Final = 2_000


class EmbeddedServer:
    """A PostgreSQL server in a temporary folder, for as long as the `with` block or until `stop()`.

    The folder is made below `folder`, or below the system's temporary folder, and is removed at the end.
    """

    def __init__(
        self,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
        encoding: str = "UTF8",
    ) -> None:
        self.binaries = find_binaries() if binaries is None else binaries
        self._settings = {**DEFAULTS, **settings}
        self._parent = folder
        self._encoding = encoding
        self._account = Account()
        self._runnable = self.binaries
        self._folder: Path | None = None
        self._port: int | None = None
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._keeper: Keeper | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    @property
    def folder(self) -> Path:
        """Where everything of this server lives."""
        if self._folder is None:
            raise EmbeddedServerError(what="the embedded server was not started")
        return self._folder

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        """The file that the server writes its log to."""
        return self.folder / "server.log"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; the same after a restart."""
        if self._port is None:
            raise EmbeddedServerError(what="the embedded server was not started")
        return self._port

    @property
    def dsn(self) -> str:
        """The superuser's way in over TCP."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    @property
    def socket_dsn(self) -> str:
        """The superuser's way in through the Unix socket."""
        return f"host={self._socket_folder} port={self.port} user=postgres dbname=postgres"

    @property
    def major(self) -> int:
        """The server's major version."""
        return int((self.data / "PG_VERSION").read_text(encoding="ascii"))

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def log_text(self) -> str:
        """What the server has logged so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def binary(self, name: str) -> Path | None:
        """A program of the same installation, such as `pg_dump`, when it has that one."""
        program = self.binaries / "bin" / name
        return program if program.is_file() else None

    def start(self) -> None:
        """Start the server, the first time in a new folder; nothing happens when it runs."""
        if self.running:
            return
        try:
            if self._folder is None:
                self._create()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, politely first, and remove its folder; nothing happens when there is none."""
        self._end("fast", "immediate")
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._port = None

    def restart(self, mode: Mode = "fast") -> None:
        """Stop and start again in the same folder on the same port."""
        self._end(mode, "immediate")
        self.start()

    def kill_immediate(self) -> None:
        """End the server as if it had crashed and keep its folder: `start()` recovers it."""
        self._end("immediate")

    @property
    def _socket_folder(self) -> Path:
        return self.folder / "socket"

    def _create(self) -> None:
        self._account = server_account()
        self._folder = make_folder(self._parent, self._account)
        self._runnable = within_reach(self.binaries, self._account, self._folder)
        for folder in (self.data, self._socket_folder):
            folder.mkdir(mode=0o700)
            self._account.take(folder)
        self._initialise()
        settings = {**self._settings, "unix_socket_directories": str(self._socket_folder)}
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{key} = {_quoted(value)}\n" for key, value in settings.items())

    def _initialise(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--no-locale", f"--encoding={self._encoding}"]
        cheap = ["--no-sync", "--wal-segsize=1"]
        with self.log_path.open("ab") as log:
            done = self._popen("initdb", *options, *cheap, log=log.fileno()).wait()
        if done != 0:
            raise EmbeddedServerError(what="initdb failed:", said=self._log_tail())

    def _popen(self, program: str, *options: str, log: int) -> subprocess.Popen[bytes]:
        # A program of the installation that we chose, with options of our own.
        return subprocess.Popen(  # noqa: S603
            [self._runnable / "bin" / program, "-D", self.data, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.data,
            env=self._environment(),
            # The terminal's Ctrl-C is for us; we stop the server in our own order.
            start_new_session=True,
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=self._account.groups,
        )

    def _environment(self) -> Mapping[str, str]:
        # Nothing of ours: PGPORT, PGOPTIONS or a locale must not reach the server.
        return {"LC_ALL": "C", "TZ": "UTC", "HOME": str(self.data), "PATH": "/usr/bin:/bin"}

    def _launch(self) -> None:
        for port in free_ports() if self._port is None else (self._port,):
            if self._comes_up(port):
                self._port = port
                return
        raise EmbeddedServerError(what="no port was free for the embedded server:", said=self._log_tail())

    def _comes_up(self, port: int) -> bool:
        before = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            postmaster = self._popen("postgres", "-p", str(port), log=log.fileno())
        self._postmaster = postmaster
        self._keeper = Keeper(pid=postmaster.pid, folder=self.folder)
        if self._becomes_ready(postmaster):
            return True
        self._end("immediate")
        if _PORT_TAKEN in self.log_text()[before:]:
            return False
        raise EmbeddedServerError(what="the embedded server did not start:", said=self._log_tail())

    def _becomes_ready(self, postmaster: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_PATIENCE
        while postmaster.poll() is None and time.monotonic() < deadline:
            if self._says_ready(postmaster.pid):
                return True
            time.sleep(_POLL)
        return False

    def _says_ready(self, pid: int) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        # A file left by an earlier life says ready too, under another pid.
        return lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]

    def _end(self, *modes: Mode) -> None:
        if self._postmaster is not None:
            for mode in modes:
                self._postmaster.send_signal(_SIGNALS[mode])
                if _ends_in_time(self._postmaster):
                    break
            else:
                self._postmaster.kill()
                self._postmaster.wait()
        self._postmaster = None
        if self._keeper is not None:
            self._keeper.dismiss()
        self._keeper = None

    def _log_tail(self) -> str:
        return self.log_text()[-_LOG_TAIL:]


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _ends_in_time(postmaster: subprocess.Popen[bytes]) -> bool:
    try:
        postmaster.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    return True
