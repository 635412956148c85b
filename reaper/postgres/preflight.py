"""Checks before the first cycle: visibility, rights, a direct connection. Every finding has its fix."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import psycopg
from psycopg.sql import Identifier

from reaper.policy.protections import BUILT_IN, DESCRIPTIONS
from reaper.policy.rules import Rules
from reaper.policy.time import Instant, Span, as_datetime, from_datetime, isoformat, words
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer of the preflight."""

    check: str
    level: Level
    finding: str
    mend: str = ""
    """SQL or a setting that fixes it."""


_PROBE: Final = statement("probe")
_OLDEST: Final = 13
_NEWEST: Final = 18
_SIXTEEN: Final = 16
"""GRANT ... WITH INHERIT and reserved_connections came with it."""
_FEWEST_RESERVED: Final = 2
_LEAST_ROLE: Final = (
    "CREATE ROLE reaper LOGIN CONNECTION LIMIT 3; GRANT pg_read_all_stats, pg_signal_backend TO reaper;"
)
_CLOCK_TOLERANCE: Final = Span(5_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The server's version, settings and our rights, read once per connection."""

    version: int
    standby: bool
    started: Instant
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
    clock: Instant

    @property
    def major(self) -> int:
        """The major version."""
        return self.version // 10_000


async def probe(connection: Connection) -> Probe:
    """Read the probe; Refused if the role may not even read it."""
    try:
        row = (await connection.rows(_PROBE))[0]
    except psycopg.Error as error:
        message = f"the server refuses the preflight: {sentence(error)}"
        raise Refused(message) from None
    version, standby, started, *rest = row
    names = list(Probe.__dataclass_fields__)[3:]
    return Probe(version=version, standby=standby, started=started, **dict(zip(names, rest, strict=True)))


def inspect(
    connection: Connection, seen: Probe, rules: Rules | None, *, dry_run: bool
) -> tuple[Finding, ...]:
    """Return the findings of a probe for these rules."""
    acts = bool(rules and rules.enforcing) and not dry_run
    return (
        _pooler(connection, seen),
        _way(connection.way),
        _version(seen),
        _visibility(seen),
        _rights(seen, acts=acts),
        _power(seen),
        _standby(seen),
        *_slots(seen),
        _activities(seen),
        _clock(seen),
        *(_protections(rules, seen) if rules else ()),
    )


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise Refused with every refusal, each with its fix."""
    refusals = [found for found in findings if found.level is Level.REFUSAL]
    if refusals:
        # A fix that is SQL ends with a semicolon, so that it can be copied.
        message = "; ".join(f"{found.finding}: {found.mend}" for found in refusals).replace(";; ", "; ")
        raise Refused(message)


def _pooler(connection: Connection, seen: Probe) -> Finding:
    if connection.pid == seen.pid:
        return Finding(check="pooler", level=Level.FINE, finding="a direct connection to the server")
    return Finding(
        check="pooler",
        level=Level.REFUSAL,
        finding="there is a pooler between the reaper and the server",
        mend="connect to PostgreSQL's own port: a pooler mixes sessions, and two reapers could both lead",
    )


def _way(way: NetworkPath) -> Finding:
    if exposed := way.exposed:
        return Finding(check="way", level=Level.WARNING, finding=exposed, mend=VERIFY)
    said = "the connection does not leave this host" if way.local else "nobody can stand in between"
    return Finding(check="way", level=Level.FINE, finding=said)


def _version(seen: Probe) -> Finding:
    said = f"PostgreSQL {seen.major}"
    if seen.major < _OLDEST:
        mend = f"upgrade to {_OLDEST} or later"
        return Finding(check="version", level=Level.REFUSAL, finding=f"{said} is too old", mend=mend)
    if seen.major > _NEWEST:
        mend = "run with --dry-run first, and compare what it says with pg_stat_activity"
        said = f"{said} is newer than {_NEWEST}, the last that this release was tested on"
        return Finding(check="version", level=Level.WARNING, finding=said, mend=mend)
    return Finding(check="version", level=Level.FINE, finding=said)


def _role(seen: Probe) -> str:
    return Identifier(seen.role).as_string()


def _inheriting(seen: Probe, role: str) -> str:
    inherits = " WITH INHERIT TRUE" if seen.major >= _SIXTEEN else ""
    also = "" if inherits else f" ALTER ROLE {_role(seen)} INHERIT;"
    return f"GRANT {role} TO {_role(seen)}{inherits};{also}"


def _visibility(seen: Probe) -> Finding:
    if seen.reads_all or seen.superuser:
        return Finding(check="visibility", level=Level.FINE, finding=f"role {seen.role} sees every session")
    return Finding(
        check="visibility",
        level=Level.REFUSAL,
        finding=f"role {seen.role} is blind: {seen.unreadable} rows of pg_stat_activity hide their state",
        mend=_inheriting(seen, "pg_read_all_stats"),
    )


def _rights(seen: Probe, *, acts: bool) -> Finding:
    if seen.signals or seen.superuser:
        return Finding(check="rights", level=Level.FINE, finding=f"role {seen.role} may terminate sessions")
    return Finding(
        check="rights",
        level=Level.REFUSAL if acts else Level.WARNING,
        finding=f"role {seen.role} may not terminate other roles' sessions",
        mend=_inheriting(seen, "pg_signal_backend"),
    )


def _power(seen: Probe) -> Finding:
    if seen.superuser:
        said = f"role {seen.role} is a superuser: superusers' sessions are no longer out of its reach"
        return Finding(check="power", level=Level.WARNING, finding=said, mend=_LEAST_ROLE)
    too_much = [*seen.needless_attributes.split(), *(f"member of {group}" for group in seen.needless_groups)]
    if not too_much:
        said = f"role {seen.role} has no more rights than it needs"
        return Finding(check="power", level=Level.FINE, finding=said)
    said = f"role {seen.role} has more rights than it needs ({', '.join(too_much)}), for whoever steals it"
    return Finding(check="power", level=Level.WARNING, finding=said, mend=" ".join(_less(seen)))


def _less(seen: Probe) -> Iterator[str]:
    if seen.needless_attributes:
        yield f"ALTER ROLE {_role(seen)} {' '.join(f'NO{one}' for one in seen.needless_attributes.split())};"
    if seen.needless_groups:
        groups = ", ".join(Identifier(group).as_string() for group in seen.needless_groups)
        yield f"REVOKE {groups} FROM {_role(seen)};"


def _standby(seen: Probe) -> Finding:
    since = f"up since {isoformat(seen.started)}"
    if seen.standby:
        return Finding(
            check="server", level=Level.NOTE, finding=f"a standby, {since}; terminating works there too"
        )
    return Finding(check="server", level=Level.FINE, finding=f"a primary, {since}")


def _slots(seen: Probe) -> Iterator[Finding]:
    said = (
        f"{seen.max_connections} slots, {seen.superuser_reserved} reserved for superusers, "
        f"{seen.reserved} for pg_use_reserved_connections"
    )
    gets_in = seen.superuser or (seen.uses_reserved and seen.reserved >= _FEWEST_RESERVED)
    if seen.major >= _SIXTEEN and not gets_in:
        grant = f"GRANT pg_use_reserved_connections TO {_role(seen)};"
        mend = f"{grant} ALTER SYSTEM SET reserved_connections = 2; -- and restart"
        said += "; a reaper that starts when they are full does not get in"
        yield Finding(check="slots", level=Level.NOTE, finding=said, mend=mend)
    else:
        yield Finding(check="slots", level=Level.FINE, finding=said)
    if seen.connection_limit < 0 and not seen.superuser:
        said = "the reaper's own role has no connection limit"
        mend = f"ALTER ROLE {_role(seen)} CONNECTION LIMIT 3;"
        yield Finding(check="slots", level=Level.NOTE, finding=said, mend=mend)


def _activities(seen: Probe) -> Finding:
    if not seen.tracks_activities:
        return Finding(
            check="track_activities",
            level=Level.WARNING,
            finding="track_activities is off: the state of sessions is not known, and nobody is reaped",
            mend="ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();",
        )
    if seen.untracked:
        return Finding(
            check="track_activities",
            level=Level.NOTE,
            finding=f"{seen.untracked} sessions have track_activities switched off, and are spared",
            mend="SELECT setrole::regrole, setconfig FROM pg_db_role_setting;",
        )
    return Finding(check="track_activities", level=Level.FINE, finding="the state of every session is known")


def _clock(seen: Probe) -> Finding:
    ahead = Span(seen.clock - from_datetime(datetime.now(UTC)))
    if abs(ahead) < _CLOCK_TOLERANCE:
        return Finding(check="clock", level=Level.FINE, finding="the server's clock agrees with this host's")
    side = "ahead of" if ahead > 0 else "behind"
    said = f"the server's clock is {words(Span(abs(ahead)))} {side} this host's; ages are the server's"
    mend = f"synchronise both by NTP; the server says {as_datetime(seen.clock):%Y-%m-%d %H:%M:%S} UTC"
    return Finding(check="clock", level=Level.NOTE, finding=said, mend=mend)


def _protections(rules: Rules, seen: Probe) -> Iterator[Finding]:
    aside: dict[str, list[str]] = {}
    for policy in rules.awake:
        for name in policy.despite:
            aside.setdefault(name, []).append(policy.name)
    for name in BUILT_IN:
        if name == "superusers" and seen.superuser:
            said = "superusers: not in force, the reaper is one itself"
            yield Finding(
                check="protections", level=Level.NOTE, finding=said, mend="log in as an ordinary role"
            )
        elif name in aside:
            said = f"{name}: set aside by {', '.join(aside[name])}"
            yield Finding(
                check="protections",
                level=Level.NOTE,
                finding=said,
                mend="delete it from override_protections",
            )
        else:
            yield Finding(check="protections", level=Level.FINE, finding=f"{name}: {DESCRIPTIONS[name]}")
