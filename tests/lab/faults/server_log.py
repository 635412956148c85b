"""The server's own account of every session that it ended at somebody's command."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

PREFIX: Final = "%n|%p|%c|%e|%b|%a|"
"""Time, pid, session, SQLSTATE, kind, application: `log_line_prefix` for the server of a campaign."""

_FIELDS: Final = 6
_BY_COMMAND: Final = "57P01"
_CLIENT: Final = "client backend"
_SHUTTING_DOWN: Final = ("received fast shutdown request", "received immediate shutdown request")
_UP: Final = "database system is ready to accept connections"


class Who(NamedTuple):
    """A session as the log names it: the second in which it began, and its pid."""

    began: int
    pid: int


@dataclass(slots=True, kw_only=True)
class Termination:
    """A session that the server says it has ended at somebody's command, and not by shutting down."""

    who: Who
    at: int
    """When, in microseconds: the end of the millisecond that the log names."""
    application: str
    at_work: bool = False
    """Whether it was running a statement, which the log then repeats."""


def terminations(logs: Iterable[Path]) -> Iterator[Termination]:
    """Every one, as the servers of a campaign logged them."""
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from _terminations(lines)


def _terminations(lines: Iterable[str]) -> Iterator[Termination]:
    ending = False
    last: Termination | None = None
    for line in lines:
        fields = line.split("|", _FIELDS)
        if len(fields) <= _FIELDS:
            continue  # the rest of a statement of several lines
        at, _, session, state, kind, application, said = fields
        who = _who(session)
        if last and who == last.who:
            last.at_work = last.at_work or said.startswith("STATEMENT:")
            continue
        if last:
            yield last
            last = None
        if any(words in said for words in _SHUTTING_DOWN):
            ending = True
        elif _UP in said:
            ending = False
        elif state == _BY_COMMAND and kind == _CLIENT and said.startswith("FATAL:") and not ending:
            last = Termination(who=who, at=_moment(at), application=application)
    if last:
        yield last


def _who(session: str) -> Who:
    began, _, pid = session.partition(".")
    return Who(int(began, 16), int(pid, 16))


def _moment(text: str) -> int:
    return int(text.replace(".", "")) * 1_000 + 999
