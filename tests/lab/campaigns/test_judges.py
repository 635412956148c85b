"""Whoever judges the campaigns must not be blind."""

from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from reaper.audit.events import INTENT, OUTCOME, Event
from reaper.audit.reader import Torn

from .account import Account
from .bounds import at_most
from .witness import Death, deaths

LOG = """\
2026-11-20 10:00:00.100 UTC [7] lane0.1 FATAL:  terminating connection due to administrator command
2026-11-20 10:00:00.200 UTC [8] lane0.2 FATAL:  terminating connection due to administrator command
2026-11-20 10:00:00.200 UTC [8] lane0.2 STATEMENT:  SELECT pg_sleep(1)
2026-11-20 10:00:00.300 UTC [9] lane0.3 ERROR:  division by zero
2026-11-20 10:00:00.300 UTC [9] lane0.3 STATEMENT:  SELECT 1 / 0
2026-11-20 10:00:00.400 UTC [9] lane0.3 FATAL:  terminating connection due to idle-session timeout
"""


def account(*told: tuple[str, str, str | None]) -> Account:
    """A record of one life: an intent for a session, or with an outcome what became of it."""
    numbers, read = count(1), Account()
    for intent, who, outcome in told:
        fields = {"run": "r", "seq": next(numbers), "intent": intent, "application": who, "outcome": outcome}
        name = OUTCOME if outcome else INTENT
        read.read([Event(name=name, time=datetime.now(UTC), fields=fields)])
    return read


WHOLE = (("1", "a", None), ("1", "a", "terminated"), ("2", "b", None), ("2", "b", "unknown"))


@pytest.mark.parametrize("died", [{"a"}, {"a", "b"}])
def test_a_record_that_tells_what_happened_is_not_objected_to(died: set[str]) -> None:
    assert account(*WHOLE).disagreements(died) == []


@pytest.mark.parametrize(
    ("told", "died", "objections"),
    [
        (WHOLE, {"a", "c"}, ["1 terminated without an intent: ['c']", "1 terminated by the log, and not"]),
        (WHOLE, set[str](), ["1 terminated by the record, and not by the log: ['a']"]),
        (WHOLE[:3], {"a"}, ["1 intents without an outcome"]),
        ((*WHOLE[:3], ("2", "b", "woke")), {"a", "b"}, ["1 terminated by the log, and not by the record"]),
    ],
)
def test_a_record_that_tells_something_else_is_objected_to(
    told: tuple[tuple[str, str, str | None], ...], died: set[str], objections: list[str]
) -> None:
    said = account(*told).disagreements(died)
    assert len(said) == len(objections)
    assert all(one.startswith(words) for one, words in zip(said, objections, strict=True))


def test_lines_that_are_torn_or_missing_are_counted() -> None:
    read = account(*WHOLE)
    read.read([Torn(file="audit.jsonl", line=5, why="not JSON")])
    read.read([Event(name=INTENT, time=datetime.now(UTC), fields={"run": "r", "seq": 7, "intent": "3"})])
    assert (read.torn, read.missing) == (1, 2)


def test_the_servers_log_tells_who_was_terminated_and_who_was_at_a_statement(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(LOG, encoding="ascii")
    assert [(death.application, death.executing) for death in deaths(log)] == [
        ("lane0.1", False),
        ("lane0.2", True),
    ]
    assert isinstance(next(deaths(log)), Death)


@pytest.mark.parametrize(
    ("hits", "of", "share"), [(0, 100_000, 3.0e-5), (10, 100_000, 17.0e-5), (1_000, 10_000, 0.1053)]
)
def test_a_share_is_bounded_as_the_tables_of_poisson_say(hits: int, of: int, share: float) -> None:
    assert at_most(hits, of) == pytest.approx(share, rel=0.005)
