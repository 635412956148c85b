"""Copies the audit log, line by line, to a table on another server.

The file is written first. The table may lag for days and never delays a cycle: copying has a task and a
connection of its own. Lines that may not have arrived are sent again, because the table ignores a line that
it already has.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Final

from reaper.audit.tail import Chunk, Tail
from reaper.postgres.audit_table import RecordTable, Row, table_row, target_of
from reaper.postgres.connection import reconnecting
from reaper.postgres.errors import Refused, ServerError
from reaper.service.pause import Flag, pause
from reaper.telemetry import events
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.collect import AuditTableGauges

PART: Final = "record table"
"""Its name in the reasons of /readyz. No server has a name with a space."""

_LOOK_SECONDS: Final = 1.0
"""How often the file is read if there was nothing new in it."""
_REST_SECONDS: Final = 0.02
"""A pause after each statement: cycles get the processor even with days of lines to send."""
_QUIET_SECONDS: Final = 30.0
"""After this time without a line, an empty insert shows whether the table would take one."""
_MOST_ROWS: Final = 50
"""In one statement; encoding more would block the event loop for more than a millisecond."""
_LAST_SECONDS: Final = 2.0
"""At the stop, the rest is sent for at most this time."""
_CLOSE_SECONDS: Final = 0.5
_MOST_PROBLEMS: Final = 1_000
_WORKING: Final = "working"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """The audit log to copy, and the connection string of the other server."""

    file: Path
    dsn: str = field(repr=False)


class Shipper:
    """Keeps the table up to date with the file."""

    def __init__(
        self, shipment: Shipment, *, log: Log, gauges: AuditTableGauges, alarm: Callable[[str, str], None]
    ) -> None:
        self._dsn = shipment.dsn
        self._source = f"{gethostname()}:{shipment.file.absolute()}"
        self._tail = Tail(shipment.file, target_of(shipment.dsn))
        # One thread: the tail is not thread-safe, and reading from a slow disk must not block the event loop.
        self._thread = ThreadPoolExecutor(1, "shipping")
        self._log = log.bind(record=str(shipment.file))
        self._gauges = gauges
        self._alarm = alarm
        self._stopping = Flag()
        self._table: RecordTable | None = None
        self._chunk: Chunk | None = None
        self._rows = list[Row]()
        """The rows of the chunk that have not arrived yet."""
        self._most_rows = _MOST_ROWS
        self._served = False
        self._used_at = 0.0
        self._state = "connecting"
        self._why = ""
        self._reported = set[str]()

    def reasons(self) -> Mapping[str, str]:
        """Why the table lags; shown by /readyz, but the service is ready all the same."""
        return {} if self._state == _WORKING else {PART: f"{self._state}: {self._why}".removesuffix(": ")}

    async def run(self, stop: asyncio.Event) -> None:
        """Copy until the stop, then the rest for a moment."""
        work = asyncio.ensure_future(
            reconnecting(
                self._serve,
                sleep=lambda delay: pause(delay, self._stopping),
                report=lambda error, _: self._disconnected(error),
                stopped=self._stopping.is_set,
            )
        )
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            await asyncio.wait((work,), timeout=_LAST_SECONDS)
            if self._table:
                # Not cancelled: psycopg would first send a cancel request to a server that does not answer.
                self._table.cut()
                await asyncio.wait((work,), timeout=_CLOSE_SECONDS)
        finally:
            stopped.cancel()
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await self._close()

    async def _serve(self) -> None:
        """Copy over one connection until it is lost or the service stops."""
        self._served = False
        # Before the connection: the lag is measured even if the server is unreachable.
        await self._in_thread(self._tail.look)
        await self._read()
        try:
            self._table = await RecordTable.open(self._dsn)
            await self._connected(self._table)
            while True:
                stopping = self._stopping.is_set()
                if not await self._ship(self._table) and stopping:
                    return
        except ServerError as lost:
            # If rows have arrived, the wait before the next attempt starts small again.
            if not self._served:
                raise
            self._disconnected(lost)
            await pause(_LOOK_SECONDS, self._stopping)
        finally:
            table, self._table = self._table, None
            self._gauges.connected = False
            if table:
                await table.close()

    async def _ship(self, table: RecordTable) -> bool:
        """Send the next rows; return False after a pause if there are none."""
        await self._read()
        rows = self._rows[: self._most_rows]
        if not rows:
            if time.monotonic() - self._used_at > _QUIET_SECONDS:
                await table.add(())
                self._arrived(0)
            await pause(_LOOK_SECONDS, self._stopping)
            return False
        try:
            await table.add(rows)
        except ServerError:
            # A server that was too slow for these within its timeout may be fast enough for fewer.
            self._most_rows = max(len(rows) // 2, 1)
            raise
        del self._rows[: len(rows)]
        self._served = True
        self._most_rows = min(self._most_rows + 1, _MOST_ROWS)
        self._arrived(len(rows))
        await pause(_REST_SECONDS, self._stopping)
        return True

    async def _read(self) -> None:
        await self._in_thread(self._next_rows)
        self._measure()

    def _next_rows(self) -> None:
        """Note the chunk that has arrived, and read the next one, unless rows are waiting."""
        while not self._rows:
            if self._chunk:
                self._tail.keep(self._chunk)
            self._chunk = self._tail.next()
            if self._chunk is None:
                break
            lines = (line for line in self._chunk.lines if line.strip())
            self._rows = [table_row(line, source=self._source) for line in lines]
        self._save()

    def _save(self) -> None:
        try:
            self._tail.save()
        except OSError as error:
            why = f"{error.strerror}; the next start sends every line again"
            self._tail.problems.append(f"{self._tail.offsets_file} cannot be written: {why}")

    async def _in_thread(self, work: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _arrived(self, rows: int) -> None:
        self._used_at = time.monotonic()
        self._gauges.arrived(rows)

    def _measure(self) -> None:
        self._gauges.waiting = self._tail.waiting
        times = (row["time"] for row in self._rows)
        self._gauges.oldest = next((at.timestamp() for at in times if isinstance(at, datetime)), None)
        problems, self._tail.problems = self._tail.problems, []
        for problem in problems:
            self._gauges.failures["file"] += self._report(problem)
        if missed := self._tail.missed:
            self._tail.missed = 0
            self._gauges.failures["missed"] += missed
            why = "removed or compressed before all of it had arrived in the table"
            self._log.error(events.AUDIT_TABLE_MISSED, copies=missed, why=why)
            self._alarm(PART, why)

    def _report(self, why: str, hint: str | None = None) -> bool:
        """Log a problem once; return False if it was logged before."""
        if why in self._reported or len(self._reported) >= _MOST_PROBLEMS:
            return False
        self._reported.add(why)
        self._log.warning(events.AUDIT_TABLE_TROUBLE, why=why, hint=hint)
        return True

    async def _connected(self, table: RecordTable) -> None:
        for why, hint in await table.doubts():
            self._report(why, hint)
        self._gauges.connected = True
        self._arrived(0)
        if self._state != _WORKING:
            self._log.info(events.AUDIT_TABLE_REACHED, at=table.where, bytes_waiting=self._gauges.waiting)
        self._state, self._why = _WORKING, ""

    def _disconnected(self, error: BaseException | None) -> None:
        """Log it once when it begins, and when the kind of failure changes; it may last for days."""
        state = "denied" if isinstance(error, Refused) else "unreachable"
        self._gauges.failures[state] += 1
        self._why = str(error)
        if state != self._state:
            event = events.AUDIT_TABLE_DENIED if state == "denied" else events.AUDIT_TABLE_UNREACHABLE
            so = "the audit log continues in its file, and is sent later"
            self._log.error(event, why=self._why, so=so)
            self._alarm(PART, f"{state}: {self._why}")
        self._state = state

    async def _close(self) -> None:
        await self._in_thread(self._tail.look)
        await self._in_thread(self._save)
        self._thread.shutdown(wait=False)
        self._measure()
        if waiting := self._gauges.waiting:
            self._log.warning(events.AUDIT_TABLE_BEHIND, bytes_waiting=waiting, so="the next start continues")
