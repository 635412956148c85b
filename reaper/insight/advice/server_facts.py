"""What the server says of itself, beside its sessions: settings, limits of roles, counters, leftovers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from reaper.policy.time import Instant, Span

_SETTING: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d|)\s*", re.ASCII)
_UNITS: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "": 1_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """A role that has sessions now."""

    name: str
    limit: int
    """Of connections; -1 is none."""
    superuser: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSetting:
    """A setting that sessions of a role, or in a database, begin with; None is all of them."""

    role: str | None
    database: str | None
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTransaction:
    """A prepared transaction: it holds its locks and its place in vacuum's way without a session."""

    gid: str
    database: str
    owner: str
    at: Instant
    xid_age: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationSlot:
    """A replication slot that nobody reads."""

    name: str
    kind: str
    xid_age: int | None
    retained: int | None
    """Bytes of the log that it keeps; None is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One reading of all that."""

    at: Instant
    major: int
    settings: Mapping[str, str]
    """In the base units of the server: milliseconds, seconds, kB or pages, as pg_settings has them."""
    roles: Mapping[str, RoleFacts]
    given: tuple[RoleSetting, ...] = ()
    prepared: tuple[PreparedTransaction, ...] = ()
    idle_slots: tuple[ReplicationSlot, ...] = ()
    opened: int | None = None
    """Sessions that all databases together have counted; nothing before 14."""
    standby: bool = False
    uses_reserved: bool = False
    """Whether we may take what `reserved_connections` keeps."""

    def number(self, name: str) -> int | None:
        """A setting that is a number; nothing for one that this server does not have or did not tell."""
        value = self.settings.get(name, "")
        return int(value) if re.fullmatch(r"-?\d{1,18}", value, re.ASCII) else None

    def limit(self, name: str, role: str, database: str | None) -> Span | None:
        """A timeout as a session of this role in this database begins with it; 0 is none."""
        for whose in ((role, database), (role, None), (None, database), (None, None)):
            for given in self.given:
                if given.name == name and (given.role, given.database) == whose:
                    return _span(given.value)
        milliseconds = self.number(name)
        return None if milliseconds is None else Span(milliseconds * 1_000)


def _span(value: str) -> Span | None:
    found = _SETTING.fullmatch(value)
    return Span(round(float(found[1]) * _UNITS[found[2]])) if found else None
