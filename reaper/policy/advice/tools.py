"""Programs that are known by the names they give: consoles, and what watches a server."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from reaper.policy.selector import Glob


def _globs(*texts: str) -> tuple[Glob, ...]:
    return tuple(map(Glob, texts))


_MONITORING: Final = _globs(
    *(
        "*postgres_exporter*",
        "*postgres-exporter*",
        "*pgwatch*",
        "[pP]rometheus*",
        "[dD]atadog*",
        "dd-agent*",
    ),
    *("[zZ]abbix*", "telegraf*", "[nN]etdata*", "pganalyze*", "[nN]ewrelic*", "check_postgres*", "check_pg*"),
    *("[pP][mM][mM]*", "pgmonitor*", "temboard*", "[gG]rafana*", "pg_activity*", "pgcluu*", "[nN]agios*"),
    *("collectd*", "[dD]ynatrace*", "otelcol*", "opentelemetry*", "pgexporter*", "[mM]unin*", "icinga*"),
)
_CONSOLES: Final = _globs(
    *("psql", "psql *", "pgcli*", "pgAdmin*", "DBeaver*", "DataGrip*", "IntelliJ*", "TablePlus*"),
    *("Navicat*", "Postico*", "HeidiSQL*", "Beekeeper*", "pspg*", "Azure Data Studio*", "SQL Workbench*"),
)
_DRIVERS: Final = _globs(
    "PostgreSQL JDBC Driver",
    "npgsql",
    "Npgsql",
    "psycopg*",
    "node-postgres",
    "asyncpg",
    "pq",
    "pgx",
)
"""Names that a driver gives when the application gives none."""
_MOST_NAMES: Final = 2_048


def _fits(globs: Iterable[Glob], name: str) -> bool:
    return any(glob.matches(name) for glob in globs)


@lru_cache(maxsize=_MOST_NAMES)
def is_monitoring(application: str) -> bool:
    """Whether an application calls itself like a tool that watches servers."""
    return _fits(_MONITORING, application)


@lru_cache(maxsize=_MOST_NAMES)
def is_console(application: str) -> bool:
    """Whether an application calls itself like a console that a person sits at."""
    return _fits(_CONSOLES, application)


@lru_cache(maxsize=_MOST_NAMES)
def is_nameless(application: str) -> bool:
    """Whether the name says nothing of the application."""
    return not application.strip() or _fits(_DRIVERS, application)
