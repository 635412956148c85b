"""Where a benchmark takes place: a PostgreSQL of its own, and real reapers that run at it."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, LiteralString, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from reaper.demo.server import EmbeddedServer
from reaper.telemetry import events
from tests.postgres.majors import installation
from tests.system.command import Done, Life, Reaper
from tests.system.policies import FILE

from .journal import Event, Journal

REAPER: Final = "reaper"
_COPIES_EITHER_WAY_SINCE: Final = 15
CYCLED: Final = (events.CYCLE_QUIET, events.CYCLE_ACTED)

_ROLE: Final[tuple[LiteralString, ...]] = (
    "CREATE ROLE reaper LOGIN",
    "GRANT pg_read_all_stats, pg_signal_backend TO reaper",
)


class Ground:
    """A server with the reaper's role on it; a database of it can stand for a server."""

    def __init__(self, major: int, **settings: str) -> None:
        self.server = EmbeddedServer(binaries=installation(major), settings=settings)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.server)
            self.admin = stack.enter_context(psycopg.connect(self.server.dsn, autocommit=True))
            for statement in _ROLE:
                self.admin.execute(statement)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def role(self, name: str, **settings: str) -> str:
        """A role that can log in and begins its sessions with these settings; its name."""
        self.admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
        for setting, value in settings.items():
            statement = SQL("ALTER ROLE {} SET {} = {}")
            self.admin.execute(statement.format(Identifier(name), Identifier(setting), Literal(value)))
        return name

    def database(self, name: str, *, user: str = REAPER) -> str:
        """Another database, where a reaper can lead beside the others; the reaper's way in."""
        # Copied as files: through the write-ahead log it would cost the disk twice as much.
        how = SQL("STRATEGY FILE_COPY" if self.server.major >= _COPIES_EITHER_WAY_SINCE else "")
        self.admin.execute(SQL("CREATE DATABASE {} {}").format(Identifier(name), how))
        return make_conninfo(self.server.dsn, user=user, dbname=name)

    def database_of(self, name: str, *, user: str) -> str:
        """Somebody else's way into a database that is there."""
        return make_conninfo(self.server.dsn, user=user, dbname=name)

    def backend(self, database: str) -> int:
        """The pid of the backend that serves the reaper there."""
        question = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = %s"
        row = self.admin.execute(question, (REAPER, database)).fetchone()
        assert row, f"no reaper at {database}"
        return int(row[0])


class Daemon:
    """`reaper run` in a folder of its own; its log and its record are files there."""

    def __init__(
        self, folder: Path, policies: str, *options: str, level: str = "info", record: str = "audit.jsonl"
    ) -> None:
        folder.mkdir()
        self.log = folder / "log.jsonl"
        self.log.touch()
        self._options = ("--log-level", level, "--audit-log", record, *options)
        self._reaper = Reaper(folder)
        self._reaper.write(FILE, policies)
        self.journal = Journal(self.log)
        self.life: Life | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._reaper.__exit__()

    @property
    def pid(self) -> int:
        """Its pid on this host."""
        assert self.life
        return self.life.pid

    def start(self) -> None:
        """Begin a life, the first or another one."""
        with self.log.open("ab") as log:
            self.life = self._reaper.start("run", *self._options, stderr=log.fileno())

    def wait(self, *names: str, since: float = 0.0, within: float = 90.0) -> Event:
        """The first event of these names from that moment on."""
        return self.journal.wait(*names, since=since, within=within, running=lambda: self.running)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.life is not None and self.life.running

    def ask(self, *arguments: str) -> Done:
        """Run another command in its folder."""
        return self._reaper(*arguments)

    def stop(self) -> int:
        """Ask it to end; how many cycles it has run."""
        assert self.life
        self.life.end()
        words = [event for event in self.journal.events if event.name == events.STOPPED]
        return sum(int(event.fields["cycles"]) for event in words)
