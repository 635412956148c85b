"""Policy files, lists of servers, snapshots and histories: used, or refused in sentences with places."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from reaper.config import BadPolicyFile, Settings, model, read
from reaper.config.validation import validate_servers
from reaper.config.yaml_tree import parse
from reaper.history.decode import BadHistory
from reaper.history.read import HistoryReader, by_server
from reaper.history.snapshot import BadSnapshot, dump_snapshot, parse_snapshot
from reaper.history.write import history_files
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.insight.recorded import CycleMark
from reaper.policy.decide import decide, questions
from reaper.policy.explain import explain
from reaper.policy.memory import Memory
from reaper.policy.session import STATES, Session, Slots, Snapshot, Watcher
from reaper.policy.text import plain
from reaper.policy.time import SECOND, Instant, Span
from reaper.telemetry.metrics.samples import of_cycle
from tests.unit.history.histories import writer
from tests.unit.policy.build import NOW, session, snapshot

from .inputs import RULES, Target, is_line, is_sentence

_CONFIG: Final = Path(__file__).parents[2] / "unit" / "config"
_POLICY_FILE: Final = tuple(
    file.read_bytes() for folder in ("bad", "doubtful") for file in sorted((_CONFIG / folder).glob("*.yaml"))
)
_ENTRIES: Final = (
    *(model.FileSection, model.PolicySection, model.MatchSection),
    *(model.ServerSection, model.NotifySection, model.SafetyLimitSection),
)
_POLICY_FILE_WORDS: Final = (
    *(name.encode() for entry in _ENTRIES for name in entry.model_fields),
    *b'idle active 10m 1s 50% off enforce local 10.0.0.0/8 "*" [a-z]*'.split(),
)
_SEEN: Final[Snapshot] = snapshot(
    session(1),
    session(2, application="", client=None, state="active"),
    session(3, role="\udcff\n*", application="[a", client="fe80::1%eth0", state="idle in transaction"),
    session(4, database=None, client="::ffff:10.2.0.7", idle=None),
)


def _check_policy_file(data: bytes) -> None:
    try:
        settings = read(data, file="x\n\x1b")
    except BadPolicyFile as bad:
        complaints = bad.mistakes
        assert complaints
    else:
        complaints = settings.warnings
        _use_settings(settings)
    for mistake in complaints:
        is_sentence(str(mistake))
        assert str(mistake).startswith(r"x\n\x1b:")
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert mistake.line <= data.count(b"\n") + data.count(b"\r") + data.count(b"\xc2\x85") + 1


def _use_settings(settings: Settings) -> None:
    rules = settings.rules
    questions(_SEEN, rules)
    plan = decide(snapshot=_SEEN, rules=rules, memory=Memory.of(_SEEN))
    assert [verdict.session.id for verdict in plan.verdicts] == [seen.id for seen in _SEEN.sessions]
    for seen in _SEEN.sessions:
        explain(seen, snapshot=_SEEN, rules=rules)


_SERVER_LIST: Final = (
    b"- {name: a, dsn: host=db, labels: {env: prod}}\n- name: b\n  dsn: postgresql://reaper@db:5432/postgres\n",
    b"[]\n",
    b'- {name: a, dsn: "host=db password=x"}\n- {name: a}\n- 1\n',
    b'[{"name": "c", "dsn": "service=orders", "labels": {"a": "b", "c": 1}}]',
)
_SERVER_LIST_WORDS: Final = tuple(b"name dsn labels host=db env prod servers".split())


def _check_server_list(data: bytes) -> None:
    try:
        document = parse(data, "x\n\x1b", below="servers")
    except BadPolicyFile as bad:
        mistakes = list(bad.mistakes)
        assert mistakes
    else:
        servers, issues = validate_servers(document)
        mistakes = document.mistakes([*document.issues, *issues])
        for server in servers.values():
            assert server.build().name.isprintable()
    for mistake in mistakes:
        is_sentence(str(mistake))


_BY_HAND: Final = b"""
{"snapshot": 1, "server": "a", "at": "2025-06-18T12:00:00Z",
 "slots": {"total": 1, "reserved": 0, "used": 1},
 "watcher": {"pid": 1, "role": "r", "superuser": false},
 "facts": {"advisory_lock_holders": [2], "waiters": {"2": 1}},
 "sessions": [{"pid": 2, "backend_start": "-9223372036854775808us", "state": "idle",
               "state_change": "2025-06-18T11:00:00Z"}]}
"""
_SNAPSHOT_FILE: Final = (
    _BY_HAND,
    dump_snapshot(snapshot(session(1), session(2, application="\x1b[2J\ud800", state="active"))),
    dump_snapshot(snapshot()),
    b"[[[[1e999, NaN, -0, 99999999999999999999]]]]",
)
_SNAPSHOT_FILE_WORDS: Final = tuple(
    word.encode()
    for word in (*Session.__slots__, *Snapshot.__slots__, *Slots.__slots__, *Watcher.__slots__, *STATES)
)
_MOST_LINES: Final = 25


def _check_snapshot_file(data: bytes) -> None:
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
    list(of_cycle(seen, plan, RULES))


def _are_sentences(problems: Sequence[str]) -> None:
    assert 0 < len(problems) <= _MOST_LINES
    for problem in problems:
        is_sentence(problem, longest=500)


_RHYTHM: Final = Rhythm(Span(10 * SECOND), Span(SECOND))


def _history_file_seeds() -> tuple[bytes, ...]:
    names = ("web-1", "\x1b[2J\n\ud800", "protected", None)
    first = [session(pid, application=name) for pid, name in enumerate(names, start=2)]
    woke = [replace(one, state_change=Instant(NOW + 3), state=STATES[one.id.pid % 4]) for one in first[:3]]
    with TemporaryDirectory() as folder:
        keeper = writer(Path(folder))
        keeper.write(snapshot(*first))
        keeper.write_partial(Instant(NOW + SECOND), first)
        keeper.write(
            snapshot(*woke, session(9), at=Instant(NOW + 10 * SECOND)), [CycleMark(Instant(NOW + SECOND), 4)]
        )
        keeper.write(snapshot(*first[1:], at=Instant(NOW + 20 * SECOND)))
        keeper.close()
        (path,) = history_files(Path(folder))
        lines = gzip.decompress(path.read_bytes())
    head, *looks = lines.splitlines(keepends=True)
    return (lines, head + looks[0], head + b"".join(looks[:2]) * 2, head + looks[-1], b"[" * 500 + b"\n\0\n")


_HISTORY_FILE: Final = _history_file_seeds()
_HISTORY_FILE_WORDS: Final = tuple(
    f'"{word}":'.encode()
    for word in (
        *("history", "server", "every", "counted_from", "partial", "rows", "at", "slots", "watcher"),
        *("unreadable", "locks", "waiters", "came", "moved", "left", "cycles"),
    )
)


def _check_history_file(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for content in (gzip.compress(data, 1), data):
            path = Path(folder) / "history-a-20250618T120000Z.jsonl.gz"
            path.write_bytes(content)
            _read_history(path)


def _read_history(path: Path) -> None:
    complaints: list[str] = []
    try:
        for server, files in by_server(history_files(path), complaints.append).items():
            is_line(plain(server))
            backtest = Backtest(server, RULES, _RHYTHM)
            for recorded in HistoryReader(files, complaints.append).snapshots():
                assert len(recorded.snapshot().sessions) == len(recorded.sessions)
                for _, reap, _ in backtest.read(recorded).terminations:
                    is_line(plain(reap.reason))
            backtest.end()
            assert sum(backtest.terminations.values()) >= 0
    except BadHistory as bad:
        is_sentence(plain(bad), longest=500)
    for each in complaints:
        is_sentence(plain(each), longest=500)


TARGETS: Final = (
    Target("policy_file", _check_policy_file, _POLICY_FILE, _POLICY_FILE_WORDS),
    Target("server_list", _check_server_list, _SERVER_LIST, _SERVER_LIST_WORDS),
    Target("snapshot_file", _check_snapshot_file, _SNAPSHOT_FILE, _SNAPSHOT_FILE_WORDS),
    Target("history_file", _check_history_file, _HISTORY_FILE, _HISTORY_FILE_WORDS),
)
