"""Globs, networks, connection strings and URLs; no message repeats one of the last two: it may be secret."""

import fnmatch
import re
from ipaddress import IPv6Network, ip_network
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

from reaper.config.errors import closest, refuse
from reaper.config.values import shown, text
from reaper.policy.selector import From, Glob, Network
from reaper.policy.session import LOCAL

LONGEST_NAME: Final = 63
"""Bytes, in PostgreSQL as it is built everywhere: longer names are truncated."""

SECRET_OPTIONS: Final = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
WHERE_SECRETS_BELONG: Final = (
    "keep it in a passfile, a service file, the environment (PGPASSWORD) or a mounted secret"
)
LONGEST_URL: Final = 2_000
URL_PATTERN: Final = "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$"
VARIABLE: Final = "[A-Za-z_][A-Za-z0-9_]{0,254}"

_LONGEST_PATTERN: Final = 500
_WILDCARDS: Final = frozenset("*?[")
_SET: Final = re.compile(r"\[!?\]?[^]]*\]")
_SEPARATORS: Final = ("|", ",")
_ENDINGS: Final = ("yaml", "yml", "json")
FILES_PATTERN: Final = rf"^([^*?\[]*/)?[^/]+\.({'|'.join(_ENDINGS)})$"
_NEVER: Final = "(?!)"
"""What fnmatch translates a set without a character to."""

# Matches also in what libpq cannot parse, so that the message about the password comes first.
_LOOKS_SECRET: Final = re.compile(
    r"\b(?:ssl)?pass(?:word|wd|phrase)?\s*=|\bpwd\s*=|_secret\s*=|\bscram_\w+\s*=", re.IGNORECASE
)
_UNKNOWN_OPTION: Final = re.compile(r'invalid (?:connection option|URI query parameter:?) "([a-z_]{1,40})"')
_URL_EXAMPLE: Final = "write for example https://chat.example.com/hooks/reaper"
_NO_HOST: Final = "has no host, or an invalid port"
_SECRET_HOST: Final = re.compile(r"(?:^|\.)(?:slack|discord|discordapp|office)\.com$")
_TOKEN: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_.~%=-]{20,}")


def name_glob(value: object) -> Glob:
    """A glob on a name that is never empty: a role or a database."""
    glob = application_glob(value)
    if not glob.text:
        refuse("an empty text matches no name", "write a name, or delete it")
    return glob


def application_glob(value: object) -> Glob:
    """A glob on an application name, which is empty for a client that set none."""
    written = text(value)
    if len(written) > _LONGEST_PATTERN:
        refuse(f"{shown(value)} is longer than {_LONGEST_PATTERN} characters", "write a shorter pattern")
    _check_dialect(written)
    if not is_literal(written):
        _check_sets(written)
    elif len(written.encode()) > LONGEST_NAME:
        what = f"{shown(value)} can never match: PostgreSQL truncates names to {LONGEST_NAME} bytes"
        refuse(what, "write the name as pg_stat_activity shows it")
    return Glob(written)


def files(value: object) -> str:
    """A glob on names of files; only the last part of a path may contain wildcards."""
    written = text(value)
    folder, _, last = written.rpartition("/")
    if _WILDCARDS & set(folder):
        what = f"{shown(written)} has a wildcard in the name of a folder"
        refuse(what, "use wildcards in the last part only, such as servers.d/*.yaml")
    if not last.endswith(tuple(f".{ending}" for ending in _ENDINGS)):
        refuse(f"{shown(written)} names no YAML or JSON files", "write for example servers.d/*.yaml")
    _check_sets(last)
    return written


def is_literal(pattern: str) -> bool:
    """Return True if a pattern matches itself and nothing else."""
    return not _WILDCARDS & set(pattern)


def _check_dialect(written: str) -> None:
    """Refuse what another language would read as a pattern, because as a glob it silently matches no name."""
    bare = _SET.sub("x", written)  # in a set, a character means itself
    if len(bare) > 1 and (bare.startswith("^") or bare.endswith("$") or bare[0] == bare[-1] == "/"):
        what = f"{shown(written)} is a regular expression, and a glob is wanted"
        glob = written.strip("/").removeprefix("^").removesuffix("$").replace(".*", "*")
        refuse(what, f"write {shown(glob)}; for the character itself write it as a set, such as [$]")
    if re.match(r"![\w*]", written):
        instead = f"write the names that are meant; for the character itself write ![{written[1]}]..."
        refuse(f"{shown(written)}: a glob cannot negate", instead)
    for mark in _SEPARATORS:
        if mark in bare:
            names = ", ".join(shown(part.strip()) for part in written.split(mark) if part.strip())
            what = f"{shown(written)} is one glob, and the {mark} in it is an ordinary character"
            refuse(what, f"write a list: [{names}]; for the character itself write [{mark}]")
    if written.casefold() == "all":
        refuse(f"{shown(written)} matches only this name", 'leave the key out, or write "*" for every name')


def _check_sets(written: str) -> None:
    """Refuse sets that fnmatch would silently read in an unexpected way."""
    at = 0
    while (start := written.find("[", at)) >= 0:
        # A bracket right after the opening one, or after its `!`, belongs to the set.
        body = start + (2 if written[start + 1 : start + 2] == "!" else 1)
        end = written.find("]", body + 1)
        if end < 0:
            what = f"{shown(written)} opens a [ and never closes it"
            refuse(what, "close it, or write [[] for the character itself")
        if "[:" in written[start + 1 : end]:
            what = f"{shown(written)} contains a character class"
            refuse(what, "list the characters, such as [a-z]")
        at = end + 1
    if _NEVER in fnmatch.translate(written):
        refuse(f"{shown(written)} contains a range that ends before it begins", "write it such as [a-z]")


def network(value: object) -> From:
    """A network, one address, or the word for the server's own socket."""
    written = text(value)
    return From(None if written == LOCAL else _network(written))


def _network(written: str) -> Network:
    address, slash, length = written.partition("/")
    if "%" in address or (slash and not re.fullmatch(r"[0-9]{1,3}", length)):
        _no_network(written)
    try:
        found = ip_network(written, strict=False)
    except ValueError:
        _no_network(written)
    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    if mapped and found.prefixlen >= 96:  # noqa: PLR2004 - where the IPv4 address begins in a mapped one
        what = f"{shown(written)} is an IPv4 network mapped to IPv6"
        refuse(what, f"write {mapped}/{found.prefixlen - 96}")
    if slash and found.network_address != ip_network(address).network_address:
        refuse(f"{shown(written)} has host bits set", f"write {found}, or the address without its /")
    return found


def _no_network(written: str) -> NoReturn:
    instead = "write for example 10.2.0.0/16, 10.2.3.4, 2001:db8::/32, or local for the server's own socket"
    if closest(written, (LOCAL, "localhost")):
        instead = "write local for the server's own socket, or 127.0.0.1"
    refuse(f"{shown(written)} is neither a network nor an address", instead)


def dsn(value: object) -> str:
    """A connection string without a password."""
    written = text(value)
    is_secret = _has_password(written) or _has_password(unquote(written))
    options = {} if is_secret else _options(written)
    if is_secret or SECRET_OPTIONS & options.keys():
        refuse("the DSN contains a password or another secret", WHERE_SECRETS_BELONG)
    if "application_name" in options:
        refuse("the DSN sets application_name", "delete it: the reaper sets its own")
    return written


def _has_password(written: str) -> bool:
    if _LOOKS_SECRET.search(written):
        return True
    # `//user:password@`, split and not searched by a pattern: a long line of slashes would take forever.
    *pieces, _ = written.split("@")
    authorities = (piece.rpartition("?")[2].partition("//")[2] for piece in pieces)
    return any(":" in authority[:-1] for authority in authorities)


def _options(written: str) -> dict[str, object]:
    # Imported here, because a file without servers need not load libpq.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        return dict(conninfo_to_dict(written))
    except ProgrammingError as error:
        found = _UNKNOWN_OPTION.search(str(error))
        what = f"libpq does not know {found[1]!r} in a DSN" if found else "libpq cannot read this DSN"
        refuse(what, "write for example host=db-1 dbname=postgres user=reaper")


def url(value: object) -> str:
    """The URL of a webhook."""
    if not isinstance(value, str):
        refuse("expected a URL", _URL_EXAMPLE)
    if flaw := url_flaw(value):
        refuse(f"the URL {flaw}", _URL_EXAMPLE)
    return value


def url_file(value: object) -> str:
    """The path of a file that contains a URL."""
    written = text(value)
    instead = "write the path of a file that contains the URL"
    if "://" in written:
        refuse("expected a file, got a URL", instead)
    if not written:
        refuse("the path is empty", instead)
    return written


def url_variable(value: object) -> str:
    """The name of an environment variable that contains a URL."""
    if not isinstance(value, str) or not re.fullmatch(VARIABLE, value):
        refuse("expected the name of an environment variable", "write one such as REAPER_WEBHOOK")
    return value


def url_flaw(written: str) -> str | None:
    """Return why a text cannot be the URL of a webhook, or None."""
    if not re.match("https?://", written, re.IGNORECASE):
        return "does not begin with https:// or http://"
    if not re.fullmatch("[!-~]+", written):
        return "contains a space or a character outside ASCII"
    if len(written) > LONGEST_URL:
        return f"is longer than {LONGEST_URL:,} characters"
    try:
        parts = urlsplit(written)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return _NO_HOST
    if parts.username is not None:
        return "contains a user name, which is not supported"
    return None if has_host else _NO_HOST


def looks_secret(written: str) -> bool:
    """Return True if a URL contains a token, or belongs to a service with secret URLs."""
    parts = urlsplit(written)
    pieces = re.split("[/&]", f"{parts.path}&{parts.query}")
    return bool(_SECRET_HOST.search(parts.hostname or "")) or any(
        _TOKEN.fullmatch(piece.rpartition("=")[2] or piece) for piece in pieces
    )
