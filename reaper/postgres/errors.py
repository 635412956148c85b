"""Errors of a server, as sentences that name the fix and contain no part of a secret."""

import re
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn

from reaper.postgres.tls import NetworkPath, tls_fix


class ServerError(Exception):
    """The server could not be reached, was lost, or refuses."""


class Unreachable(ServerError):
    """No connection could be made."""


class Lost(ServerError):
    """The connection broke; whether the last statement ran is not known."""


class Refused(ServerError):
    """The server is there, and the reaper must not or cannot work on it."""


def sentence(error: BaseException) -> str:
    """The driver's message on one line."""
    # Only `str`: the representation of a failed connection contains its password.
    text = " ".join(str(error).split()) or type(error).__name__
    state = getattr(error, "sqlstate", None)
    return f"{text} (SQLSTATE {state})" if state else text


_UNREADABLE: Final = "it is neither `key=value ...` nor a postgresql:// URI"
_MISREAD: Final = (
    "its host, port or database looks like the rest of a password: in a URI write @ as %40 and / as %2F"
)
_SECRETS: Final = {
    b"password",
    b"sslpassword",
    b"oauth_client_secret",
    b"scram_client_key",
    b"scram_server_key",
}
_SHORTEST: Final = 4
"""Replacing a shorter secret would garble the message and hide nothing."""
_HIDDEN: Final = "***"
_BAD_ADVICE: Final = " Either provide the file"
"""libpq's message continues with advice to switch verification off."""


class Unreadable(ValueError):
    """A connection string that cannot be right."""


def read(dsn: str) -> dict[str, str]:
    """Return the parts of a connection string. The message of Unreadable contains none of them."""
    # libpq quotes the part that it cannot parse, which may be a password. It also takes a URI whose password
    # contains a bare @ or / for that of another host: the rest would go to the resolver and the log.
    try:
        given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error:
        raise Unreadable(_UNREADABLE) from None
    host, port, database = (given.get(key, "") for key in ("host", "port", "dbname"))
    odd_host = "@" in host.lstrip("@")  # a socket in the abstract namespace begins with one
    odd_port = re.fullmatch("[0-9,]*", port) is None
    odd_database = "://" in dsn and "@" in database and database in dsn
    if odd_host or odd_port or odd_database:
        raise Unreadable(_MISREAD)
    return given


async def explained(error: psycopg.Error | OSError | ValueError) -> ServerError:
    """The reason why connecting failed."""
    match error:
        case psycopg.ProgrammingError(sqlstate=None):
            return Unreachable(f"the connection string cannot be read: {_UNREADABLE}")
        case psycopg.Error():
            return await _explained(error)
        case Unreadable():
            return Unreachable(f"the connection string cannot be read: {error}")
        case ValueError():
            return Unreachable("the host's name is none that can be looked up")
    return Unreachable(sentence(error))


async def _explained(error: psycopg.Error) -> ServerError:
    text = sentence(error).partition(_BAD_ADVICE)[0]
    failed = error.pgconn
    if failed is None:
        return Unreachable(text)
    text = _scrubbed(text, failed)
    if "unsupported startup parameter" in text:
        message = f"{text}; this is a pooler: connect to PostgreSQL itself, which shows the real sessions"
        return Refused(message)
    # The environment or a service file may give a port that is no number.
    port = failed.port.decode(errors="replace")
    fix = await tls_fix(text, NetworkPath.of(failed), int(port) if port.isdecimal() else 0)
    return Unreachable(f"{text}; {fix}" if fix else text)


def _scrubbed(text: str, failed: PGconn) -> str:
    """The message without any password: a server, real or not, may repeat what it was sent."""
    given = [option.val for option in failed.info if option.keyword in _SECRETS and option.val]
    # The password of a passfile is not among the options.
    for secret in (each.decode(errors="replace") for each in (*given, failed.password)):
        text = text.replace(secret, _HIDDEN) if len(secret) >= _SHORTEST else text
    return text


def is_lost(error: psycopg.Error, *, closed: bool) -> bool:
    """Return True if the connection is gone, False if only a statement failed."""
    fatal = error.diag.severity_nonlocalized in {"FATAL", "PANIC"}
    return closed or fatal or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None)
