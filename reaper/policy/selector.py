"""Selectors: globs on names and networks on addresses.

Within a key one pattern must match. An unknown value never matches; an empty name is a value.
"""

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

from reaper.policy.session import LOCAL, Identity

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Glob:
    """A full-match pattern on the raw value, case-sensitive: `*`, `?`, `[...]`."""

    text: str
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the pattern once."""
        # fnmatch's translation takes each `*` once and never goes back: no pattern is slow on any name.
        object.__setattr__(self, "_compiled", re.compile(fnmatch.translate(self.text)))

    def matches(self, value: str | None) -> bool:
        """Whether the whole value matches; an unknown value never does."""
        return value is not None and self._compiled.match(value) is not None

    def __str__(self) -> str:
        """The pattern as the policy file has it."""
        return self.text


@dataclass(frozen=True, slots=True)
class From:
    """A client network, or the server's own socket."""

    network: Network | None

    def matches(self, client: str | None) -> bool:
        """Whether this address is in the network; None is the server's own socket."""
        if client is None or self.network is None:
            return client is None and self.network is None
        return any(address in self.network for address in _addresses(client))

    def __str__(self) -> str:
        """The network as the policy file has it."""
        return LOCAL if self.network is None else str(self.network)


@lru_cache(maxsize=2_048)
def _addresses(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    """The address; both forms of an IPv4 address that came as IPv6; empty for text that is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return ()
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (address,) if mapped is None else (address, mapped)


class Hit(NamedTuple):
    """A pattern of a selector that matches a session."""

    key: str
    pattern: str
    value: str | None

    def __str__(self) -> str:
        """`application 'metabase'`, with the pattern beside it when it is another text."""
        value = LOCAL if self.value is None else self.value
        return f"{self.key} {value!r}" + ("" if self.pattern == value else f" as {self.pattern!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Lists of globs and networks; an empty list is a key that the policy file leaves out."""

    role: tuple[Glob, ...] = ()
    database: tuple[Glob, ...] = ()
    application: tuple[Glob, ...] = ()
    client: tuple[From, ...] = ()

    def selects(self, identity: Identity) -> bool:
        """Whether every key in use has a pattern that matches: the rule of `match`."""
        return all(any(p.matches(value) for p in patterns) for _, patterns, value in self.given(identity))

    def first_hit(self, identity: Identity) -> Hit | None:
        """The first pattern of any key that matches: the rule of `allowlist` and `protect`."""
        for key, patterns, value in self.given(identity):
            for pattern in patterns:
                if pattern.matches(value):
                    return Hit(key, str(pattern), value)
        return None

    def given(
        self, identity: Identity
    ) -> Iterator[tuple[str, tuple[Glob, ...] | tuple[From, ...], str | None]]:
        """Each key in use, its patterns, and the session's value for it."""
        if self.role:
            yield "role", self.role, identity.role
        if self.database:
            yield "database", self.database, identity.database
        if self.application:
            yield "application", self.application, identity.application
        if self.client:
            yield "client", self.client, identity.client


NO_KEYS: Final = Selector()
