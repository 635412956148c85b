"""What the server reports besides its sessions: settings, role limits, counters, unused replication slots."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reaper.policy.time import Duration, Timestamp, parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """A role that has sessions now."""

    name: str
    limit: int
    """Its connection limit; -1 is none."""
    superuser: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSetting:
    """A setting with which sessions of a role or in a database begin; None stands for all of them."""

    role: str | None
    database: str | None
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTransaction:
    """A prepared transaction: without a session it holds its locks and delays vacuum."""

    gid: str
    database: str
    owner: str
    at: Timestamp
    xid_age: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationSlot:
    """A replication slot without a consumer."""

    name: str
    kind: str
    xid_age: int | None
    retained: int | None
    """Bytes of the write-ahead log that it retains; None is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Settings, roles and counters of a server at one moment."""

    at: Timestamp
    major: int
    settings: Mapping[str, str]
    """In the base units of pg_settings: milliseconds, seconds, kB or pages."""
    roles: Mapping[str, RoleFacts]
    given: tuple[RoleSetting, ...] = ()
    prepared: tuple[PreparedTransaction, ...] = ()
    idle_slots: tuple[ReplicationSlot, ...] = ()
    opened: int | None = None
    """Sessions that all databases have counted; None before PostgreSQL 14."""
    standby: bool = False
    uses_reserved: bool = False
    """True if the observing role may use the slots of `reserved_connections`."""

    def number(self, name: str) -> int | None:
        """Return a numeric setting; None if this server does not have it or did not report it."""
        value = self.settings.get(name, "")
        return int(value) if re.fullmatch(r"-?\d{1,18}", value, re.ASCII) else None

    def limit(self, name: str, role: str, database: str | None) -> Duration | None:
        """Return the timeout with which a session of this role in this database begins; 0 is none."""
        for scope in ((role, database), (role, None), (None, database), (None, None)):
            for given in self.given:
                if given.name == name and (given.role, given.database) == scope:
                    return _span(given.value)
        milliseconds = self.number(name)
        return None if milliseconds is None else Duration(milliseconds * 1_000)


def _span(value: str) -> Duration | None:
    """Read a timeout as PostgreSQL stores it: `5min`, `5 min`, or milliseconds without a unit."""
    try:
        return Duration(int(value) * 1_000) if value.isdecimal() else parse_duration(value.strip())
    except ValueError:
        return None
