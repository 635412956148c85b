"""Connection strings: readable to libpq, and without a secret."""

import re
from typing import Final, NoReturn
from urllib.parse import unquote

from reaper.config.fields import text
from reaper.config.wording import refuse

SECRETS: Final = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
WHERE_SECRETS_BELONG: Final = (
    "keep it in a passfile, a service file, the environment (PGPASSWORD) or a mounted secret"
)
# Also in what libpq cannot read, so that the sentence about the password comes before the one about syntax.
_LOOKS_SECRET: Final = re.compile(
    r"\b(?:ssl)?pass(?:word|wd|phrase)?\s*=|\bpwd\s*=|_secret\s*=|\bscram_\w+\s*=",
    re.IGNORECASE,
)
_UNKNOWN_OPTION: Final = re.compile(r'invalid (?:connection option|URI query parameter:?) "([a-z_]{1,40})"')


def dsn(value: object) -> str:
    """A DSN without a password; no message of ours ever repeats what stands in it."""
    written = text(value)
    if _looks_secret(written) or _looks_secret(unquote(written)):
        _refuse_secret()
    options = _options(written)
    if SECRETS & options.keys():
        _refuse_secret()
    if "application_name" in options:
        refuse("the DSN holds an application_name", "delete it: the reaper names itself")
    return written


def _looks_secret(written: str) -> bool:
    if _LOOKS_SECRET.search(written):
        return True
    # `//user:password@`, cut in pieces and not searched for: a long line of slashes would take forever.
    *pieces, _ = written.split("@")
    authorities = (piece.rpartition("?")[2].partition("//")[2] for piece in pieces)
    return any(":" in authority[:-1] for authority in authorities)


def _refuse_secret() -> NoReturn:
    refuse("the DSN holds a password or another secret", WHERE_SECRETS_BELONG)


def _options(written: str) -> dict[str, object]:
    # Here, because checking a file that names no server should not cost the loading of libpq.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        return dict(conninfo_to_dict(written))
    except ProgrammingError as error:
        found = _UNKNOWN_OPTION.search(str(error))
        what = f"libpq knows no {found[1]!r} in a DSN" if found else "libpq cannot read this DSN"
        instead = "write for example host=db-1 dbname=postgres user=reaper"
        refuse(what, instead)
