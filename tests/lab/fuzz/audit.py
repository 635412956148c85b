"""Audit logs: read to the end, chained, settled and stored in a table, with any bytes in them."""

import gzip
import io
import json
import os
from datetime import datetime
from typing import Final

from reaper.audit.chain import Chain, chain_at_end
from reaper.audit.events import EVENTS, Event
from reaper.audit.reader import (
    GROUPS,
    BadLine,
    format_time,
    iterate_lines,
    open_intents,
    outcomes,
    read_events,
    summary,
)
from reaper.audit.tail import NUMBER_COLUMNS, table_row
from reaper.policy.plan import Outcome, Result
from reaper.policy.session import Identity, whose
from reaper.policy.text import plain
from tests.unit.audit.build import AUTHOR, SNAPSHOT, MemorySink, ledger, reap

from .inputs import Target, is_line


def _audit_file_seeds() -> tuple[bytes, ...]:
    sink = MemorySink()
    log = ledger(sink)
    for application in ("web-1", "\x1b[2J\n\ud800", None):
        (intent,) = log.intend(AUTHOR, "1", SNAPSHOT, [reap(application=application)])
        if application:
            log.log_outcomes([(intent, Outcome(result=Result.TERMINATED))])
    lines = b"".join(sink.taken)
    return (lines, lines[100:], lines.replace(b'"run"', b'"ruin"'), b"[" * 500 + b"\n{}\n\n1e999\n", b"\0\n")


_AUDIT_FILE: Final = _audit_file_seeds()
_AUDIT_FILE_WORDS: Final = tuple(
    word.encode()
    for word in (*EVENTS, *Result, *GROUPS, *{field.name for fields in EVENTS.values() for field in fields})
)


def _check_audit_file(data: bytes) -> None:
    found = list(read_events(io.BytesIO(data)))
    events = [event for event in found if isinstance(event, Event)]
    for torn in found:
        if isinstance(torn, BadLine):
            is_line(plain(torn))
    ended = outcomes(events)
    for event in ended:
        is_line(plain(whose(Identity(*map(event.text, Identity._fields)))))
        is_line(plain(event.fields.get("pid")))
        assert format_time(event.time)
        f"{event.time:%Y-%m-%dT%H:%M:%SZ}"
    for group in GROUPS:
        assert sum(int(str(row["total"])) for row in summary(ended, group)) == len(ended)
    _settled(data, open_intents(events))
    list(read_events(io.BytesIO(gzip.compress(data, 0)[: len(data) + 8])))


def _settled(data: bytes, waiting: list[Event]) -> None:
    sink = MemorySink()
    ledger(sink, run="next").log_unknown_outcomes(waiting, "it ended")
    for line in sink.taken:
        is_line(line.decode("ascii").removesuffix("\n"))
        json.loads(line)
    whole = data + b"\n" + b"".join(sink.taken)
    assert not open_intents(read_events(io.BytesIO(whole)))


_AUDIT_CHAIN: Final = (
    *_AUDIT_FILE,
    b'{"schema": 1}\n\n\n{"schema": 2}\ntorn',
    b"torn\n" * 3,
    b'{"schema": 1}',
    b"\n\n",
)
_AUDIT_CHAIN_WORDS: Final = (*_AUDIT_FILE_WORDS, b"schema", b"\n")


def _check_audit_chain(data: bytes) -> None:
    if not data:
        return
    forwards = Chain()
    for number, line in enumerate(iterate_lines(io.BytesIO(data)), start=1):
        assert line.number == number
        assert line.fields is not None or line.why
        forwards.add(line)
    memory = os.memfd_create("audit")
    try:
        os.write(memory, data)
        backwards = chain_at_end(memory, len(data), before=Chain)
    finally:
        os.close(memory)
    assert backwards.head == forwards.head


_AUDIT_COLUMNS: Final = tuple(line for seed in _AUDIT_FILE for line in seed.splitlines()[:3])
_AUDIT_COLUMNS_WORDS: Final = _AUDIT_FILE_WORDS


def _check_audit_columns(data: bytes) -> None:
    row = table_row(data)
    assert row.keys() == table_row(b"").keys()
    for name, value in row.items():
        match value:
            case str():
                assert "\0" not in value
                value.encode()
            case int() if name in NUMBER_COLUMNS:
                assert not isinstance(value, bool)
                assert abs(value) < NUMBER_COLUMNS[name]
            case _:
                assert value is None or isinstance(value, datetime | bool | bytes)


TARGETS: Final = (
    Target("audit_file", _check_audit_file, _AUDIT_FILE, _AUDIT_FILE_WORDS),
    Target("audit_chain", _check_audit_chain, _AUDIT_CHAIN, _AUDIT_CHAIN_WORDS),
    Target("audit_columns", _check_audit_columns, _AUDIT_COLUMNS, _AUDIT_COLUMNS_WORDS),
)
