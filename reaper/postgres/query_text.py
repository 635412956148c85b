"""Query text for those who asked for it, without its literals unless those were asked for too."""

import re
from enum import Enum
from typing import Final

# Comments and literals as the server's lexer would meet them; whatever is not closed before the text was cut
# off runs to its end.
_LITERALS: Final = re.compile(
    r"""
      --[^\r\n]*
    | /\*.*?(?:\*/|\Z)
    | "(?:[^"]|"")*(?:"|\Z)
    | \b(?:[bBeEnNxX]|[uU]&)?'(?P<text>(?:[^'\\]|''|\\.)*)(?:'|\\?\Z)
    | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
    | (?<![\w$])\d[\w.]*(?:[eE][+-]\d+)?
    | (?<![\w$])\.\d\w*
    """,
    re.VERBOSE | re.DOTALL,
)


def strip_literals(query: str) -> str:
    """The shape of a query: every literal is `?`, comments are gone, identifiers stay.

    Whether a backslash escapes depends on a setting that we cannot see: behind a literal that holds one,
    nothing is shown.
    """
    ambiguous: list[int] = []

    def shape(found: re.Match[str]) -> str:
        text = found.group()
        if text.startswith('"'):
            return text
        if text.startswith(("--", "/*")):
            return " "
        if found["text"] and "\\" in found["text"]:
            ambiguous.append(found.start())
            return "\0"
        return "?"

    shaped = _LITERALS.sub(shape, query)
    return shaped.split("\0", 1)[0] + "?..." if ambiguous else shaped


class QueryText(Enum):
    """How much of a session's query may leave the server."""

    NONE = "none"
    SHAPE = "shape"
    FULL = "full"

    @property
    def wanted(self) -> bool:
        """Whether the server is asked for it at all."""
        return self is not QueryText.NONE

    def shown(self, query: str | None) -> str | None:
        """The query as far as it may be shown."""
        if query is None or self is QueryText.NONE:
            return None
        return strip_literals(query) if self is QueryText.SHAPE else query
