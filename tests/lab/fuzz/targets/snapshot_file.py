"""A saved snapshot is one that is written and read again as it was, and judged, or sentences."""

from collections.abc import Sequence
from typing import Final

from reaper.history.snapshot import BadSnapshot, dump_snapshot, parse_snapshot
from reaper.policy.decide import decide
from reaper.policy.explain import explain
from reaper.policy.memory import Memory
from reaper.policy.session import STATES, Session, Slots, Snapshot, Watcher
from reaper.policy.text import plain
from reaper.telemetry.metrics.samples import readings
from tests.lab.fuzz.promises import is_sentence
from tests.lab.fuzz.rules import RULES
from tests.unit.policy.build import session, snapshot

_BY_HAND: Final = b"""
{"snapshot": 1, "server": "a", "at": "2025-06-18T12:00:00Z",
 "slots": {"total": 1, "reserved": 0, "used": 1},
 "watcher": {"pid": 1, "role": "r", "superuser": false},
 "facts": {"advisory_lock_holders": [2], "waiters": {"2": 1}},
 "sessions": [{"pid": 2, "backend_start": "-9223372036854775808us", "state": "idle",
               "state_change": "2025-06-18T11:00:00Z"}]}
"""
SEEDS: Final = (
    _BY_HAND,
    dump_snapshot(snapshot(session(1), session(2, application="\x1b[2J\ud800", state="active"))),
    dump_snapshot(snapshot()),
    b"[[[[1e999, NaN, -0, 99999999999999999999]]]]",
)
WORDS: Final = tuple(
    word.encode()
    for word in (*Session.__slots__, *Snapshot.__slots__, *Slots.__slots__, *Watcher.__slots__, *STATES)
)
_MOST_LINES: Final = 25


def check(data: bytes) -> None:
    try:
        seen = parse_snapshot(data, file="s.json")
    except BadSnapshot as bad:
        _are_sentences(bad.problems)
        return
    assert parse_snapshot(dump_snapshot(seen), file="again") == seen
    plan = decide(snapshot=seen, rules=RULES, memory=Memory.of(seen))
    assert len(plan.verdicts) == len(seen.sessions)
    for verdict in plan.verdicts:
        assert plain(verdict.reason).isprintable()
        explain(verdict.session, snapshot=seen, rules=RULES)
    list(readings(seen, plan, RULES))


def _are_sentences(problems: Sequence[str]) -> None:
    assert 0 < len(problems) <= _MOST_LINES
    for problem in problems:
        is_sentence(problem, longest=500)
