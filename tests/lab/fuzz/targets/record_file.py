"""A record is read to its end, whatever stands in it, and every open intent in it can be settled."""

import gzip
import io
import json
from typing import Final

from reaper.audit.events import EVENTS, Event
from reaper.audit.reader import GROUPS, Torn, moment, open_intents, outcomes, read_events, summary
from reaper.policy.plan import Outcome, Result
from reaper.policy.session import Identity, whose
from reaper.policy.text import plain
from tests.lab.fuzz.promises import is_line
from tests.unit.audit.build import AUTHOR, SNAPSHOT, Shelf, ledger, reap


def _seeds() -> tuple[bytes, ...]:
    shelf = Shelf()
    book = ledger(shelf)
    for application in ("web-1", "\x1b[2J\n\ud800", None):
        (intent,) = book.intend(AUTHOR, "1", SNAPSHOT, [reap(application=application)])
        if application:
            book.settle(intent, Outcome(result=Result.TERMINATED))
    lines = b"".join(shelf.taken)
    return (lines, lines[100:], lines.replace(b'"run"', b'"ruin"'), b"[" * 500 + b"\n{}\n\n1e999\n", b"\0\n")


SEEDS: Final = _seeds()
WORDS: Final = tuple(
    word.encode()
    for word in (*EVENTS, *Result, *GROUPS, *{field.name for fields in EVENTS.values() for field in fields})
)


def check(data: bytes) -> None:
    found = list(read_events(io.BytesIO(data)))
    events = [event for event in found if isinstance(event, Event)]
    for torn in found:
        if isinstance(torn, Torn):
            is_line(plain(torn))
    ended = outcomes(events)
    for event in ended:
        is_line(plain(whose(Identity(*map(event.text, Identity._fields)))))
        is_line(plain(event.fields.get("pid")))
        assert moment(event.time)
        f"{event.time:%Y-%m-%dT%H:%M:%SZ}"
    for group in GROUPS:
        assert sum(int(str(row["total"])) for row in summary(ended, group)) == len(ended)
    _settled(data, open_intents(events))
    list(read_events(io.BytesIO(gzip.compress(data, 0)[: len(data) + 8])))


def _settled(data: bytes, waiting: list[Event]) -> None:
    shelf = Shelf()
    ledger(shelf, run="next").settle_earlier(waiting, "it ended")
    for line in shelf.taken:
        is_line(line.decode("ascii").removesuffix("\n"))
        json.loads(line)
    whole = data + b"\n" + b"".join(shelf.taken)
    assert not open_intents(read_events(io.BytesIO(whole)))
