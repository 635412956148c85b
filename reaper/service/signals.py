"""Signals set flags and do nothing else; what they ask for happens between acts."""

import asyncio
import signal

from reaper.record.ledger import Ledger
from reaper.record.writer import RecordFailed
from reaper.telemetry import events
from reaper.telemetry.log import Log


def heed_signals(stop: asyncio.Event, ledger: Ledger, log: Log) -> None:
    """SIGTERM and Ctrl-C ask to stop; SIGHUP, from logrotate, to reopen the record."""
    loop = asyncio.get_running_loop()

    def asked_to_stop(name: str) -> None:
        log.info(events.STOPPING, signal=name)
        stop.set()

    def asked_to_reopen() -> None:
        try:
            ledger.reopen()
        except RecordFailed as failed:
            log.error(events.RECORD_FAILED, why=str(failed))  # noqa: TRY400 (a sentence, not a traceback)
        else:
            log.info(events.RECORD_REOPENED)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, number.name)
    loop.add_signal_handler(signal.SIGHUP, asked_to_reopen)
