"""Application names of monitoring tools, consoles and drivers."""

from collections.abc import Iterable
from typing import Final

from reaper.policy.protections import is_backup_tool, pooler
from reaper.policy.selector import Glob


def _globs(texts: str) -> tuple[Glob, ...]:
    return tuple(map(Glob, texts.split("|")))


_MONITORING: Final = _globs(
    "*postgres_exporter*|*postgres-exporter*|*pgwatch*|[pP]rometheus*|[dD]atadog*|dd-agent*|[zZ]abbix*|telegraf*"
    "|[nN]etdata*|pganalyze*|[nN]ewrelic*|check_postgres*|check_pg*|[pP][mM][mM]*|pgmonitor*|temboard*|[gG]rafana*"
    "|pg_activity*|pgcluu*|[nN]agios*|collectd*|[dD]ynatrace*|otelcol*|opentelemetry*|pgexporter*|[mM]unin*|icinga*"
)
_CONSOLES: Final = _globs(
    "psql|psql *|pgcli*|pgAdmin*|DBeaver*|DataGrip*|IntelliJ*|TablePlus*|Navicat*|Postico*|HeidiSQL*"
    "|Beekeeper*|pspg*|Azure Data Studio*|SQL Workbench*"
)
# Drivers set these names when the application sets none.
_DRIVERS: Final = _globs("PostgreSQL JDBC Driver|npgsql|Npgsql|psycopg*|node-postgres|asyncpg|pq|pgx")


def is_monitoring(application: str) -> bool:
    """Return True for the name of a monitoring tool."""
    return _matches(_MONITORING, application)


def is_console(application: str) -> bool:
    """Return True for the name of an interactive console."""
    return _matches(_CONSOLES, application)


def is_nameless(application: str) -> bool:
    """Return True if the name is empty or only that of a driver."""
    return not application.strip() or _matches(_DRIVERS, application)


def is_tool(application: str) -> bool:
    """Return True for the name of a pooler, a backup, a console or a monitoring tool."""
    return any(known(application) for known in (pooler, is_backup_tool, is_console, is_monitoring))


def _matches(globs: Iterable[Glob], name: str) -> bool:
    return any(glob.matches(name) for glob in globs)
