"""URLs of webhooks: often a secret, so that no message ever repeats one."""

import re
from typing import Final
from urllib.parse import urlsplit

from reaper.config.fields import text
from reaper.config.wording import refuse

VARIABLE: Final = re.compile("[A-Za-z_][A-Za-z0-9_]{0,254}")

LONGEST: Final = 2_000

_NO_HOST: Final = "names no host, or a port that is none"
_FOR_EXAMPLE: Final = "write for example https://chat.example.com/hooks/reaper"
_KNOWN_SECRET: Final = re.compile(r"(?:^|\.)(?:slack|discord|discordapp|office)\.com$")
_TOKEN: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_.~%=-]{20,}")


def url(value: object) -> str:
    """The URL of a webhook."""
    if not isinstance(value, str):
        refuse("no URL stands here", _FOR_EXAMPLE)
    if wrong := unfit(value):
        refuse(f"the URL {wrong}", _FOR_EXAMPLE)
    return value


def file(value: object) -> str:
    """The path of a file that holds a URL."""
    written = text(value)
    if "://" in written:
        refuse("a URL stands where a file is wanted", "write the path of a file that holds the URL")
    if not written:
        refuse("an empty text names no file", "write the path of a file that holds the URL")
    return written


def variable(value: object) -> str:
    """The name of an environment variable that holds a URL."""
    if not isinstance(value, str) or not VARIABLE.fullmatch(value):
        refuse("this is no name of an environment variable", "write one such as REAPER_WEBHOOK")
    return value


def unfit(written: str) -> str | None:
    """What keeps a text from being the URL of a webhook."""
    if not re.match("https?://", written, re.IGNORECASE):
        return "does not begin with https:// or http://"
    if not re.fullmatch("[!-~]+", written):
        return "holds a space or a character beyond ASCII"
    if len(written) > LONGEST:
        return f"is longer than {LONGEST:,} characters"
    try:
        parts = urlsplit(written)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return _NO_HOST
    if parts.username is not None:
        return "names a user, and messages are sent without one"
    return None if is_whole else _NO_HOST


def looks_secret(written: str) -> bool:
    """Whether a URL carries what others could use: a token in it, or a host that deals in such."""
    parts = urlsplit(written)
    pieces = re.split("[/&]", f"{parts.path}&{parts.query}")
    return bool(_KNOWN_SECRET.search(parts.hostname or "")) or any(
        _TOKEN.fullmatch(piece.rpartition("=")[2] or piece) for piece in pieces
    )
