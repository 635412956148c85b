"""Names and texts as SQL spells them, whatever is in them: harmless to copy, to run and to look at.

What cannot be printed stands as an escape of `U&"..."`: what a terminal shows is what the server gets.
"""

from typing import Final

_LONGEST: Final = 63
"""Bytes. The server would cut a longer name, and mean somebody else by it."""


def identifier(name: str | None) -> str | None:
    """A name in double quotes; nothing for what no name of a server can be."""
    if not name or "\0" in name or _broken(name) or len(name.encode()) > _LONGEST:
        return None
    return _quoted(name, '"')


def literal(text: str) -> str | None:
    """A text in single quotes; nothing for what no text of a server can be."""
    return None if "\0" in text or _broken(text) else _quoted(text, "'")


def _quoted(text: str, quote: str) -> str:
    doubled = text.replace(quote, 2 * quote)
    if text.isprintable() and (quote == '"' or "\\" not in text):
        return f"{quote}{doubled}{quote}"
    return f"U&{quote}{''.join(map(_escaped, doubled))}{quote}"


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\{code:04X}" if code <= 0xFFFF else f"\\+{code:06X}"  # noqa: PLR2004 (four digits end there)


def _broken(text: str) -> bool:
    """Whether it holds half a pair of surrogates, which no encoding takes."""
    return any("\ud800" <= character <= "\udfff" for character in text)
