"""The record of `run` and `once`: where it goes."""

import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from reaper.cli.exits import Misconfigured
from reaper.record.file import FileSink
from reaper.record.ledger import Ledger
from reaper.record.recovery import settle_open_intents
from reaper.record.writer import RecordFailed, Sink, StreamSink
from reaper.service.heads import Heads
from reaper.telemetry import events
from reaper.telemetry.log import Log

STDOUT: Final = "-"


@contextmanager
def opened_ledger(targets: Sequence[str], log: Log) -> Iterator[Ledger]:
    """Open every sink before anything else happens, and settle what an earlier life left open."""
    targets = tuple(dict.fromkeys(targets))
    ledger = Ledger(
        [_sink(target) for target in targets], clock=lambda: datetime.now(UTC), run=uuid.uuid4().hex
    )
    try:
        ledger.open()
        if targets == (STDOUT,) and sys.stdout.isatty():
            log.warning(
                events.RECORD_NOT_KEPT, why="it is shown here and nowhere kept", keep="--audit-log FILE"
            )
        for target in targets:
            if target != STDOUT and (count := settle_open_intents(Path(target), ledger)):
                log.warning(events.RECORD_RECOVERED, file=target, open_intents=count, settled_as="unknown")
        heads = Heads(ledger, log)
        heads.tell()
        try:
            yield ledger
        finally:
            ledger.close()
            heads.tell()
    except RecordFailed as failed:
        raise Misconfigured(str(failed)) from None


def _sink(target: str) -> Sink:
    if target != STDOUT:
        return FileSink(Path(target))
    if not sys.stdout.isatty():
        return StreamSink(sys.stdout.fileno())
    from reaper.cli.terminal import TerminalSink  # noqa: PLC0415 (where nobody watches, nothing is drawn)

    return TerminalSink()
