"""What stands at the beginning of a line of the server's log, as its `log_line_prefix` says."""

import re
from collections.abc import Iterable
from typing import Final

COMMON: Final = (
    "%m [%p] ",
    "%m [%p] %q%u@%d ",
    "%m [%p] %q%a ",
    "%m [%p] %a ",
    "%m [%p] %e ",
    "%m [%p] %q[%e] ",
    "%t [%p] ",
    "%t [%p]: ",
    "%t [%p]: user=%u,db=%d,app=%a,client=%h ",
    "%t:%r:%u@%d:[%p]:",
    "%m %p ",
    "%m:%p:",
)
"""Tried in this order when nobody says which it is; the first is the server's default."""

_TIME: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})? [A-Za-z0-9+:-]{1,10}"
# Bounded, for a client chooses what stands there: no name can make the search long.
_ANYTHING: Final = r".{0,80}?"
_ESCAPES: Final = {
    "%": "%",
    "p": r"(?P<pid>\d{1,10})",
    "t": f"(?P<time>{_TIME})",
    "m": f"(?P<time>{_TIME})",
    "n": r"(?P<epoch>\d{1,12}\.\d{1,6})",
    "s": f"(?P<started>{_TIME})",
    "c": r"(?P<session>[0-9a-f]{1,16}\.[0-9a-f]{1,8})",
    "e": r"(?P<state>[0-9A-Z]{5})",
    "l": r"\d+",
    "q": "",
}
_ESCAPE: Final = re.compile(r"%-?\d*([A-Za-z%])")
# In capitals, in every language that has them: a client's name before it may hold a colon too.
_MESSAGE: Final = r"(?P<severity>[^\s:a-z]{1,20}):\s+(?P<message>.*)"


class BadPrefix(ValueError):
    """A prefix that does not tell who and when."""


def compiled(prefix: str) -> re.Pattern[str]:
    """What fits a line with this prefix; raises BadPrefix when it does not tell the pid and the time."""
    parts, at = [], 0
    for escape in _ESCAPE.finditer(prefix):
        padding = r"\s*" if len(escape[0]) > len("%p") else ""
        inner = _ESCAPES.get(escape[1], _ANYTHING)
        parts += [re.escape(prefix[at : escape.start()]), padding, inner, padding]
        at = escape.end()
    parts += [re.escape(prefix[at:]), _MESSAGE]
    try:
        pattern = re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        message = f"the prefix {prefix!r} names the same thing twice"
        raise BadPrefix(message) from error
    if "pid" not in pattern.groupindex or not {"time", "epoch"} & pattern.groupindex.keys():
        message = f"the prefix {prefix!r} tells no pid (%p), or no time (%m, %t or %n)"
        raise BadPrefix(message)
    return pattern


def guessed(lines: Iterable[str]) -> re.Pattern[str] | None:
    """The common prefix that fits most of these lines, or nothing when none fits any."""
    lines = list(lines)
    fitting = [
        (sum(bool(pattern.match(line)) for line in lines), pattern) for pattern in map(compiled, COMMON)
    ]
    most, best = max(fitting, key=lambda each: each[0])
    return best if most else None
