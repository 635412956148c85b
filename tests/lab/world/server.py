"""A PostgreSQL server of the lab: the embedded one, with the roles of the experiments and a log in CSV."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from reaper.demo.server import EmbeddedServer
from tests.postgres.majors import installation
from tests.postgres.waiting import until

REAPER: Final = "reaper"
_ROLES: Final = (
    f"CREATE ROLE {REAPER} LOGIN",
    f"GRANT pg_read_all_stats, pg_signal_backend TO {REAPER}",
    "CREATE ROLE app LOGIN",
    "CREATE ROLE other LOGIN",
)
_LOG: Final[Mapping[str, str]] = {
    "logging_collector": "on",
    # stderr too, for the messages about a port that is in use.
    "log_destination": "stderr,csvlog",
    "log_filename": "server.log",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_timezone": "UTC",
}
_FILE_COPY_SINCE: Final = 15
_BACKEND: Final = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = %s"


@contextmanager
def lab_server(major: int, **settings: str) -> Iterator[tuple["LabServer", Path]]:
    """A running server, and an empty folder."""
    with TemporaryDirectory() as folder, LabServer(major, **settings) as server:
        yield server, Path(folder)


class LabServer(EmbeddedServer):
    """A server with the reaper's role; a database of it can stand for a server of its own."""

    def __init__(self, major: int, **settings: str) -> None:
        super().__init__(binaries=installation(major), settings={**_LOG, **settings})
        self.environment: dict[str, str] = {}
        """Further environment variables of the next start."""
        self._prepared = False

    def start(self) -> None:
        """Start, and create the roles the first time."""
        super().start()
        if not self._prepared:
            self._prepared = True
            self.prepare()

    def prepare(self) -> None:
        """Create the roles."""
        self.run(*_ROLES)

    @property
    def created(self) -> bool:
        """Return True if its folder exists."""
        return self._folder is not None

    @property
    def postmaster(self) -> int:
        """The pid of the server's first process; 0 while it is stopped."""
        return self._postmaster.pid if self._postmaster else 0

    @property
    def csv_log(self) -> Path:
        return self.data / "log" / "server.csv"

    @property
    def socket(self) -> str:
        """The path of the server's Unix socket."""
        return f"{self.folder}/socket/.s.PGSQL.{self.port}"

    def log_text(self) -> str:
        """The text log: what was written before the collector started, and what the collector wrote."""
        collected = self.csv_log.with_name("server.log")
        return super().log_text() + (collected.read_text("utf-8", "replace") if collected.exists() else "")

    def flush_log(self) -> None:
        """Wait until everything that was logged so far is in the CSV file: the collector writes it later."""
        mark = f"mark-{secrets.token_hex(8)}"
        self.run(f"DO $$ BEGIN RAISE LOG '{mark}'; END $$")
        until(lambda: mark in self.csv_log.read_text("utf-8", "replace"))

    def run(self, *statements: str | bytes) -> None:
        """Run statements as the superuser, on a connection of their own."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode() if isinstance(statement, str) else statement)

    def query(self, statement: LiteralString, *parameters: object) -> Sequence[tuple[Any, ...]]:
        """Run a query as the superuser; return its rows."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(statement, parameters).fetchall()

    def role(self, name: str, **settings: str) -> str:
        """Create a role that can log in, with these settings; return its name."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
            for setting, value in settings.items():
                statement = SQL("ALTER ROLE {} SET {} = {}")
                connection.execute(statement.format(Identifier(name), Identifier(setting), Literal(value)))
        return name

    def database(self, name: str) -> str:
        """Create a database, in which a reaper can lead beside others; return the reaper's DSN."""
        # Copied as files: through the write-ahead log it would cost the disk twice as much.
        how = SQL("STRATEGY FILE_COPY" if self.major >= _FILE_COPY_SINCE else "")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {} {}").format(Identifier(name), how))
        return self.dsn_of(REAPER, name)

    def dsn_of(self, user: str, database: str = "postgres") -> str:
        """The DSN of this role to this database."""
        return make_conninfo(self.dsn, user=user, dbname=database)

    def reaper_backend(self, database: str) -> int:
        """The pid of the server process that serves the reaper in this database."""
        ((pid,),) = self.query(_BACKEND, REAPER, database)
        return int(pid)

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), **self.environment}
