"""Checks before the first cycle: visibility, rights, a direct connection. Every finding has its fix."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

import psycopg
from psycopg.sql import Identifier

from reaper.policy.protections import BUILT_IN, DESCRIPTIONS
from reaper.policy.rules import Rules
from reaper.policy.time import Duration, Timestamp, as_datetime, from_datetime, isoformat, words
from reaper.postgres.connection import Connection
from reaper.postgres.errors import Refused, sentence
from reaper.postgres.sql import statement
from reaper.postgres.tls import VERIFY, NetworkPath


class Level(StrEnum):
    """The severity of a finding."""

    FINE = "fine"
    NOTE = "note"
    WARNING = "warning"
    REFUSAL = "refusal"


class CheckResult(NamedTuple):
    """One finding of the preflight."""

    check: str
    level: Level
    finding: str
    fix: str = ""
    """SQL or a setting."""


PROTECTIONS: Final = "protections"
"""The check that lists the protections in force."""
_PROBE: Final = statement("probe")
_OLDEST: Final = 13
_NEWEST: Final = 18
_SIXTEEN: Final = 16
"""GRANT ... WITH INHERIT and reserved_connections came with it."""
_MIN_RESERVED: Final = 2
_LEAST_ROLE: Final = (
    "CREATE ROLE reaper LOGIN CONNECTION LIMIT 3; GRANT pg_read_all_stats, pg_signal_backend TO reaper;"
)
_CLOCK_TOLERANCE: Final = Duration(5_000_000)


@dataclass(frozen=True, slots=True)
class Probe:
    """The server's version, settings and our rights: the columns of probe.sql, read once per connection."""

    version: int
    standby: bool
    started: Timestamp
    pid: int
    role: str
    superuser: bool
    reads_all: bool
    signals: bool
    needless_attributes: str
    needless_groups: list[str]
    connection_limit: int
    tracks_activities: bool
    unreadable: int
    untracked: int
    max_connections: int
    superuser_reserved: int
    reserved: int
    uses_reserved: bool
    clock: Timestamp

    @property
    def major(self) -> int:
        """The major version."""
        return self.version // 10_000

    @property
    def quoted_role(self) -> str:
        """Our role as SQL writes it."""
        return Identifier(self.role).as_string()


async def probe(connection: Connection) -> Probe:
    """Read the probe; Refused if the role may not even read it."""
    try:
        (row,) = await connection.rows(_PROBE)
    except psycopg.Error as error:
        message = f"the server refuses the preflight: {sentence(error)}"
        raise Refused(message) from None
    return Probe(*row)


def inspect(
    connection: Connection, found: Probe, rules: Rules | None, *, dry_run: bool
) -> tuple[CheckResult, ...]:
    """The results of all checks for these rules."""
    enforces = bool(rules and rules.enforcing) and not dry_run
    return (
        _pooler(connection, found),
        _network_path(connection.path),
        _version(found),
        _visibility(found),
        _rights(found, enforces=enforces),
        _power(found),
        _standby(found),
        *_slots(found),
        _activities(found),
        _clock(found),
        *(_protections(rules, found) if rules else ()),
    )


def refuse(results: tuple[CheckResult, ...]) -> None:
    """Raise Refused with every refusal, each with its fix."""
    refusals = [result for result in results if result.level is Level.REFUSAL]
    if refusals:
        # A fix that is SQL ends with a semicolon, so that it can be copied.
        message = "; ".join(f"{result.finding}: {result.fix}" for result in refusals).replace(";; ", "; ")
        raise Refused(message)


def _pooler(connection: Connection, found: Probe) -> CheckResult:
    # A pooler invents the pid of its greeting: the server's own answer differs.
    if connection.pid == found.pid:
        return CheckResult("pooler", Level.FINE, "a direct connection to the server")
    fix = "connect to PostgreSQL's own port: a pooler mixes sessions, and two reapers could both lead"
    return CheckResult("pooler", Level.REFUSAL, "there is a pooler between the reaper and the server", fix)


def _network_path(path: NetworkPath) -> CheckResult:
    if exposed := path.exposed:
        return CheckResult("network", Level.WARNING, exposed, VERIFY)
    safe = "the connection does not leave this host" if path.local else "encrypted, to a verified server"
    return CheckResult("network", Level.FINE, safe)


def _version(found: Probe) -> CheckResult:
    name = f"PostgreSQL {found.major}"
    if found.major < _OLDEST:
        fix = f"upgrade to {_OLDEST} or later"
        return CheckResult("version", Level.REFUSAL, f"{name} is too old", fix)
    if found.major > _NEWEST:
        fix = "run with --dry-run first, and compare its output with pg_stat_activity"
        newer = f"{name} is newer than {_NEWEST}, the last that this release was tested on"
        return CheckResult("version", Level.WARNING, newer, fix)
    return CheckResult("version", Level.FINE, name)


def _grant(found: Probe, role: str) -> str:
    # Before 16 a role inherits all of its memberships or none of them.
    if found.major >= _SIXTEEN:
        return f"GRANT {role} TO {found.quoted_role} WITH INHERIT TRUE;"
    return f"GRANT {role} TO {found.quoted_role}; ALTER ROLE {found.quoted_role} INHERIT;"


def _visibility(found: Probe) -> CheckResult:
    if found.reads_all or found.superuser:
        return CheckResult("visibility", Level.FINE, f"role {found.role} sees every session")
    denied = (
        f"role {found.role} may not read other roles' sessions: "
        f"{found.unreadable} rows of pg_stat_activity hide their state"
    )
    return CheckResult("visibility", Level.REFUSAL, denied, _grant(found, "pg_read_all_stats"))


def _rights(found: Probe, *, enforces: bool) -> CheckResult:
    if found.signals or found.superuser:
        return CheckResult("rights", Level.FINE, f"role {found.role} may terminate sessions")
    level = Level.REFUSAL if enforces else Level.WARNING
    denied = f"role {found.role} may not terminate other roles' sessions"
    return CheckResult("rights", level, denied, _grant(found, "pg_signal_backend"))


def _power(found: Probe) -> CheckResult:
    if found.superuser:
        reaches = f"role {found.role} is a superuser: it can terminate superusers' sessions too"
        return CheckResult("power", Level.WARNING, reaches, _LEAST_ROLE)
    attributes, groups = found.needless_attributes.split(), found.needless_groups
    needless = ", ".join([*attributes, *(f"member of {group}" for group in groups)])
    if not needless:
        return CheckResult("power", Level.FINE, f"role {found.role} has no more rights than it needs")
    fix = []
    if attributes:
        fix.append(f"ALTER ROLE {found.quoted_role} {' '.join(f'NO{name}' for name in attributes)};")
    if groups:
        quoted = ", ".join(Identifier(group).as_string() for group in groups)
        fix.append(f"REVOKE {quoted} FROM {found.quoted_role};")
    more = f"role {found.role} has more rights than it needs ({needless}): a leaked password is worth more"
    return CheckResult("power", Level.WARNING, more, " ".join(fix))


def _standby(found: Probe) -> CheckResult:
    since = f"up since {isoformat(found.started)}"
    if found.standby:
        return CheckResult("server", Level.NOTE, f"a standby, {since}; terminating works there too")
    return CheckResult("server", Level.FINE, f"a primary, {since}")


def _slots(found: Probe) -> Iterator[CheckResult]:
    slots = (
        f"{found.max_connections} slots, {found.superuser_reserved} reserved for superusers, "
        f"{found.reserved} for pg_use_reserved_connections"
    )
    connects_when_full = found.superuser or (found.uses_reserved and found.reserved >= _MIN_RESERVED)
    # Before 16 nothing but a superuser connects to a full server: there is no fix to offer.
    if found.major >= _SIXTEEN and not connects_when_full:
        grant = f"GRANT pg_use_reserved_connections TO {found.quoted_role};"
        fix = f"{grant} ALTER SYSTEM SET reserved_connections = 2; -- and restart"
        refused = f"{slots}; a reaper that starts when they are full is refused"
        yield CheckResult("slots", Level.NOTE, refused, fix)
    else:
        yield CheckResult("slots", Level.FINE, slots)
    if found.connection_limit < 0 and not found.superuser:
        fix = f"ALTER ROLE {found.quoted_role} CONNECTION LIMIT 3;"
        yield CheckResult("slots", Level.NOTE, "the reaper's own role has no connection limit", fix)


def _activities(found: Probe) -> CheckResult:
    if not found.tracks_activities:
        off = "track_activities is off: the state of sessions is unknown, and nothing is terminated"
        fix = "ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();"
        return CheckResult("track_activities", Level.WARNING, off, fix)
    if found.untracked:
        some = f"{found.untracked} sessions have track_activities switched off, and are skipped"
        fix = "SELECT setrole::regrole, setconfig FROM pg_db_role_setting;"
        return CheckResult("track_activities", Level.NOTE, some, fix)
    return CheckResult("track_activities", Level.FINE, "the state of every session is known")


def _clock(found: Probe) -> CheckResult:
    ahead = Duration(found.clock - from_datetime(datetime.now(UTC)))
    if abs(ahead) < _CLOCK_TOLERANCE:
        return CheckResult("clock", Level.FINE, "the server's clock agrees with this host's")
    side = "ahead of" if ahead > 0 else "behind"
    differs = f"the server's clock is {words(Duration(abs(ahead)))} {side} this host's; ages are the server's"
    fix = f"synchronise both by NTP; the server's time is {as_datetime(found.clock):%Y-%m-%d %H:%M:%S} UTC"
    return CheckResult("clock", Level.NOTE, differs, fix)


def _protections(rules: Rules, found: Probe) -> Iterator[CheckResult]:
    for name in BUILT_IN:
        overriding = [policy.name for policy in rules.enabled if name in policy.overrides]
        if name == "superusers" and found.superuser:
            off = "superusers: not in force, the reaper is one itself"
            yield CheckResult(PROTECTIONS, Level.NOTE, off, "log in as an ordinary role")
        elif overriding:
            off = f"{name}: overridden by {', '.join(overriding)}"
            yield CheckResult(PROTECTIONS, Level.NOTE, off, "delete it from override_protections")
        else:
            yield CheckResult(PROTECTIONS, Level.FINE, f"{name}: {DESCRIPTIONS[name]}")
