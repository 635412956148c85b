"""Values as text and as JSON; text that a client wrote becomes one harmless line."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum


def printable(value: object) -> str:
    """Escape what could move a cursor, colour a terminal, start a line or turn the reading direction."""
    if value is None:
        return ""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return `1 session`, `1,204 sessions`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def percent(share: float | None) -> str:
    """Return `80%`, `12.5%`: three significant digits; an empty text if the share is not known."""
    return "" if share is None else f"{100 * share:.3g}%"


def as_document(value: object) -> object:
    """Return the value as JSON; a dataclass or a named tuple becomes an object."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {field.name: as_document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_document(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [as_document(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): as_document(part) for name, part in value.items()}
    return value
