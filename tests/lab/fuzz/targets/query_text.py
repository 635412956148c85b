"""Whatever a query looks like, no literal of it is shown."""

import re
from typing import Final

from reaper.postgres.query_text import strip_literals

SEEDS: Final = (
    b"SELECT 'secret', E'a\\'b', $tag$ x $tag$, 1.5e3 -- comment\n FROM \"a\"\"b\" WHERE x = $1",
    b"/* a /* b */ c */ SELECT U&'\\0041' UESCAPE '!', B'01', X'1f', .5, a$b$c",
    b"$$ never closed",
    b"'never closed \\",
    b'"never closed',
)
WORDS: Final = (
    *rb"""' '' E' U&' $$ $a$ $1 /* */ -- " \' \ 1.5e3 .5 SELECT a$b x'1f' ::int""".split(),
    "é".encode(),
    b"\n",
)
_LONGEST: Final = 20_000


def check(data: bytes) -> None:
    query = data[:_LONGEST].decode("utf-8", "backslashreplace")
    shown = strip_literals(query)
    assert len(shown) <= len(query) + len("?...")
    # What is left besides names in quotes: a quote or a number would be part of a literal.
    bare = re.sub(r'"(?:[^"]|"")*(?:"|\Z)', "", shown)
    assert "'" not in bare
    assert not re.search(r"(?<![\w$\x80-\U0010ffff])[0-9]", bare)
