"""Whatever a client wrote, shown as one harmless line."""


def plain(value: object) -> str:
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
