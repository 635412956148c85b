"""Globs and networks: what stands in the lists of a selector, and files that are found by a glob."""

import fnmatch
import re
from ipaddress import IPv6Network, ip_network
from typing import Final

from reaper.config.fields import text
from reaper.config.wording import guess, refuse, shown
from reaper.policy.selector import From, Glob, Network
from reaper.policy.session import LOCAL

LONGEST_NAME: Final = 63
"""Bytes, in PostgreSQL as it is built everywhere: longer names are cut."""

_LONGEST_PATTERN: Final = 500
_WILD: Final = frozenset("*?[")
_ENDINGS: Final = ("yaml", "yml", "json")
EDITOR_FILES: Final = rf"^([^*?\[]*/)?[^/]+\.({'|'.join(_ENDINGS)})$"
_NEVER: Final = "(?!)"
"""What fnmatch makes of a set that holds no character."""


def named(value: object) -> Glob:
    """A glob on a name that is never empty: a role or a database."""
    glob = unnamed(value)
    if not glob.text:
        refuse("an empty text matches no name", "write a name, or delete it")
    return glob


def unnamed(value: object) -> Glob:
    """A glob on an application name, which is empty for a client that gave none."""
    written = text(value)
    if len(written) > _LONGEST_PATTERN:
        refuse(f"{shown(value)} is longer than {_LONGEST_PATTERN} characters", "write a shorter pattern")
    if is_literal(written):
        if len(written.encode()) > LONGEST_NAME:
            what = f"{shown(value)} can never match: PostgreSQL cuts names at {LONGEST_NAME} bytes"
            refuse(what, "write the name as pg_stat_activity shows it")
    else:
        _check_sets(written)
    return Glob(written)


def files(value: object) -> str:
    """A glob on the names of files; only the last part of a path may hold wildcards."""
    written = text(value)
    folder, _, last = written.rpartition("/")
    if _WILD & set(folder):
        what = f"{shown(written)} holds a wildcard in the name of a folder"
        refuse(what, "write it in the last part only, such as servers.d/*.yaml")
    if not last.endswith(tuple(f".{ending}" for ending in _ENDINGS)):
        what = f"{shown(written)} names no YAML or JSON files"
        refuse(what, "write for example servers.d/*.yaml")
    _check_sets(last)
    return written


def is_literal(pattern: str) -> bool:
    """Whether a pattern matches itself and nothing else."""
    return not _WILD & set(pattern)


def _check_sets(written: str) -> None:
    """Refuse what fnmatch would quietly take otherwise than it was meant."""
    at = 0
    while (start := written.find("[", at)) >= 0:
        # A bracket right after the opening, or after its `!`, belongs to the set.
        body = start + (2 if written[start + 1 : start + 2] == "!" else 1)
        end = written.find("]", body + 1)
        if end < 0:
            what = f"{shown(written)} opens a [ and never closes it"
            refuse(what, "close it, or write [[] for the character itself")
        if "[:" in written[start + 1 : end]:
            refuse(f"{shown(written)} names a class of characters", "write the characters, such as [a-z]")
        at = end + 1
    if _NEVER in fnmatch.translate(written):
        refuse(f"{shown(written)} holds a range that ends before it begins", "write it such as [a-z]")


def network(value: object) -> From:
    """A network, one address, or the word for the server's own socket."""
    written = text(value)
    if written == LOCAL:
        return From(None)
    return From(_network(written))


def _network(written: str) -> Network:
    for_example = (
        "write for example 10.2.0.0/16, 10.2.3.4, 2001:db8::/32, or local for the server's own socket"
    )
    address, slash, length = written.partition("/")
    if "%" in address or (slash and not re.fullmatch(r"[0-9]{1,3}", length)):
        refuse(f"{shown(written)} is neither a network nor an address", for_example)
    try:
        found = ip_network(written, strict=False)
    except ValueError:
        is_near = guess(written, (LOCAL, "localhost"))
        instead = "write local for the server's own socket, or 127.0.0.1" if is_near else for_example
        refuse(f"{shown(written)} is neither a network nor an address", instead)
    return _checked(found, written)


def _checked(found: Network, written: str) -> Network:
    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    if mapped and found.prefixlen >= 96:  # noqa: PLR2004 - where the IPv4 address begins in a mapped one
        instead = f"write {mapped}/{found.prefixlen - 96}"
        refuse(f"{shown(written)} is an IPv4 network in the clothes of IPv6", instead)
    if "/" in written and ip_network(written, strict=False).network_address != _address_of(written):
        refuse(f"{shown(written)} has host bits set", f"write {found}, or the address without its /")
    return found


def _address_of(written: str) -> object:
    return ip_network(written.partition("/")[0]).network_address
