"""Rows of a server: saved, decided and logged; and query texts, which lose their literals."""

import json
import re
from typing import Final

from reaper.history.snapshot import dump_snapshot, parse_snapshot
from reaper.policy.decide import decide
from reaper.policy.memory import Memory
from reaper.policy.plan import Outcome, Plan, Result
from reaper.policy.session import STATES, Facts, Session, Slots, Snapshot, Watcher
from reaper.policy.time import Timestamp
from reaper.postgres.observer import count_waiters
from reaper.postgres.query_text import QueryText, strip_literals
from reaper.postgres.rows import ObservedRow, as_text, instant_of, session_of
from tests.unit.audit.build import AUTHOR, MemorySink, ledger

from .inputs import RULES, Feed, Target, is_line

_EPOCH: Final = (b"\0\x02\xdb\x7f\xae\x90\x40\0", b"\x7f" + b"\xff" * 7, b"\x80" + b"\0" * 7)
_KINDS: Final = (b"client backend", b"walsender", b"", None)
_STATES: Final = tuple(state.encode() for state in STATES)
_FLAGS: Final = (False, True, None)
_ENCODING: Final = "utf-8"
_MOST_ROWS: Final = 6

_ROW: Final = b"\0\1\0\0\4shop\0\7app_web\0\5web-1\1\0\0\0\0\0\0\0\0\0"
_SERVER_ROWS: Final = (
    _ROW,
    _ROW * 3,
    b'\0\2\1\0\6\x1b[2J\n\0\3\xff\xfe\xc3\0\4"}\\n\1\1' + bytes(range(60)),
    bytes(200),
)


def _check_server_rows(data: bytes) -> None:
    feed = Feed(data)
    rows = [_row(feed)]
    while feed and len(rows) < _MOST_ROWS:
        rows.append(_row(feed))
    query_text = feed.pick(tuple(QueryText))
    sessions = {one.id: one for row in rows if (one := session_of(row, query_text, _ENCODING))}
    seen = _snapshot(feed, rows[0], tuple(sessions.values()), unreadable=len(rows) - len(sessions))
    assert parse_snapshot(dump_snapshot(seen), file="s.json") == seen
    plan = decide(snapshot=seen, rules=RULES, memory=Memory.of(seen))
    outcome = Outcome(result=feed.pick(tuple(Result)), at=seen.at, detail=_text(feed))
    _record(seen, plan, outcome)


def _row(feed: Feed) -> ObservedRow:
    start = _raw_moment(feed)
    return ObservedRow(
        pid=feed.number(),
        backend_start=start,
        database=_name(feed),
        role=_name(feed),
        application=_name(feed),
        client=_name(feed),
        kind=feed.pick(_KINDS),
        role_oid=int.from_bytes(feed.take(4)),
        superuser=feed.pick(_FLAGS),
        client_port=int.from_bytes(feed.take(4)),
        state=feed.pick((*_STATES, b"starting", None)),
        state_change=_raw_moment(feed),
        query_start=_raw_moment(feed),
        xact_start=_raw_moment(feed),
        wait_event=feed.pick((None, b"SyncRep")),
        xid_age=feed.pick((None, 1, 5, -1, 2**31 - 1)),
        listens=feed.pick(_FLAGS),
        starts_backup=feed.pick(_FLAGS),
        query=_name(feed),
        at=start or _raw_moment(feed) or 0,
        clients=None,
        unreadable=None,
    )


def _raw_moment(feed: Feed) -> int | None:
    drawn = feed.pick((*_EPOCH, b"", None))
    return None if drawn is None else int.from_bytes(drawn or feed.take(8).rjust(8, b"\0"), signed=True)


def _name(feed: Feed) -> bytes | None:
    return None if feed.number() % 4 == 1 else feed.piece().replace(b"\0", b"")


def _text(feed: Feed) -> str | None:
    data = _name(feed)
    return None if data is None else as_text(data, _ENCODING)


def _snapshot(feed: Feed, row: ObservedRow, sessions: tuple[Session, ...], *, unreadable: int) -> Snapshot:
    blockers = {feed.number(): set(feed.take(3)) for _ in range(feed.number() % 4)}
    return Snapshot(
        server="orders",
        at=instant_of(row.at) or Timestamp(0),
        slots=Slots(total=feed.number(2), reserved=feed.number(), used=feed.number(2)),
        watcher=Watcher(pid=feed.number(), role=_text(feed) or "", superuser=False),
        sessions=sessions,
        unreadable=unreadable,
        facts=Facts(
            advisory_lock_holders=feed.pick((None, frozenset(feed.take(2)))),
            waiters=feed.pick((None, count_waiters(blockers))),
        ),
    )


def _record(seen: Snapshot, plan: Plan, outcome: Outcome) -> None:
    sink = MemorySink()
    log = ledger(sink)
    log.log_safety_limit(AUTHOR, "1", seen, plan.trips)
    for intent in log.intend(AUTHOR, "1", seen, (*plan.candidates, *plan.dry_run_candidates)):
        log.log_outcomes([(intent, outcome)])
    for line in sink.taken:
        is_line(line.decode("ascii").removesuffix("\n"))
        json.loads(line)


_QUERY_TEXT: Final = (
    b"SELECT 'secret', E'a\\'b', $tag$ x $tag$, 1.5e3 -- comment\n FROM \"a\"\"b\" WHERE x = $1",
    b"/* a /* b */ c */ SELECT U&'\\0041' UESCAPE '!', B'01', X'1f', .5, a$b$c",
    b"$$ never closed",
    b"'never closed \\",
    b'"never closed',
)
_QUERY_TEXT_WORDS: Final = (
    *rb"""' '' E' U&' $$ $a$ $1 /* */ -- " \' \ 1.5e3 .5 SELECT a$b x'1f' ::int""".split(),
    "é".encode(),
    b"\n",
)
_LONGEST: Final = 20_000


def _check_query_text(data: bytes) -> None:
    query = data[:_LONGEST].decode("utf-8", "backslashreplace")
    shown = strip_literals(query)
    assert len(shown) <= len(query) + len("?...")
    # What is left besides names in quotes: a quote or a number would be part of a literal.
    bare = re.sub(r'"(?:[^"]|"")*(?:"|\Z)', "", shown)
    assert "'" not in bare
    assert not re.search(r"(?<![\w$\x80-\U0010ffff])[0-9]", bare)


TARGETS: Final = (
    Target("server_rows", _check_server_rows, _SERVER_ROWS),
    Target("query_text", _check_query_text, _QUERY_TEXT, _QUERY_TEXT_WORDS),
)
