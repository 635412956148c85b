"""Query text as far as the options allow it, by default without its literals."""

import re
from enum import Enum
from typing import Final

# Tokens as the server's lexer finds them. It cuts off long texts: a token that is not closed extends to the
# end. Names are tokens as well: a quote or a dollar that belongs to one begins no literal.
_TOKENS: Final = re.compile(
    r"""
      (?P<comment>--[^\r\n]* | /\*.*?(?:\*/|\Z))
    | (?:[bBeEnNxX]|[uU]&)?'(?P<text>(?:[^'\\]|''|\\.)*)(?:'|\\?\Z)
    | (?P<name>"(?:[^"]|"")*(?:"|\Z) | [A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]* | \$\d+)
    | \$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?)\$.*?(?:\$(?P=tag)\$|\Z)
    | \.?\d[\w.]*
    """,
    re.VERBOSE | re.DOTALL,
)


def strip_literals(query: str) -> str:
    """The shape of a query: every literal is `?`, comments are gone, identifiers stay.

    Nothing is shown after a literal with a backslash (whether it escapes depends on a setting that we cannot
    see) or after a nested comment (a regular expression cannot find its end).
    """
    ambiguous: list[int] = []

    def shape(found: re.Match[str]) -> str:
        if found["name"]:
            return found["name"]
        comment = found["comment"] or ""
        nested = comment.startswith("/*") and "/*" in comment[2:]
        if comment and not nested:
            return " "
        if nested or "\\" in (found["text"] or ""):
            ambiguous.append(found.start())
            return "\0"
        return "?"

    shaped = _TOKENS.sub(shape, query)
    return shaped.split("\0", 1)[0] + "?..." if ambiguous else shaped


class QueryText(Enum):
    """How much of a session's query may leave the server."""

    NONE = "none"
    SHAPE = "shape"
    FULL = "full"

    @property
    def wanted(self) -> bool:
        """Return True if the server must send it."""
        return self is not QueryText.NONE

    def shown(self, query: str | None) -> str | None:
        """The query as far as it may be shown."""
        if query is None or self is QueryText.NONE:
            return None
        return strip_literals(query) if self is QueryText.SHAPE else query
