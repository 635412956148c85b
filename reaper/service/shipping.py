"""Carries the record, line by line as it stands in its file, to a table on another server.

The file is the truth and is written first. The table may lag, for days if it must, and never keeps a cycle
waiting: this is a task of its own, with a connection of its own and a rest after every statement. What is not
known to have arrived is sent again, and a line that is there already stays as it is.
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
from typing import Final, TypeVar

from reaper.audit.tail import Marks, Piece, Tail, columns
from reaper.postgres.audit_table import RecordTable, target_of
from reaper.postgres.connection import reconnecting
from reaper.postgres.errors import Refused, ServerError
from reaper.service.pause import Flag, pause
from reaper.telemetry import events
from reaper.telemetry.log import Log
from reaper.telemetry.metrics.exposition import CopyGauges

T = TypeVar("T")

_SAVE_SECONDS: Final = 1.0
"""How much a crash may cost: what was sent since the last time is sent again."""


@dataclass(slots=True)
class Load:
    """A piece of the record as rows, and how many of them have arrived."""

    piece: Piece
    rows: list[dict[str, object]]
    arrived: int = 0

    @property
    def oldest(self) -> float | None:
        """When the first of those that have not arrived was written."""
        times = (row["time"] for row in self.rows[self.arrived :])
        return next((each.timestamp() for each in times if isinstance(each, datetime)), None)


class Backlog:
    """The rows that are still to be sent, in their order."""

    def __init__(self, record: Path, target: str) -> None:
        self._source = f"{gethostname()}:{record.absolute()}"
        self._thread = ThreadPoolExecutor(1, "backlog")
        self._marks = Marks(record, target)
        self._tail = Tail(record, self._marks)
        self._saved_at = 0.0
        self._troubles: list[str] = []

    @property
    def waiting(self) -> int:
        """Bytes that have not arrived."""
        return self._tail.waiting

    def troubles(self) -> list[str]:
        """What went wrong since this was last asked, in sentences."""
        found, self._troubles = [*self._tail.troubles(), *self._troubles], []
        return found

    def missed(self) -> int:
        """How many copies of the record have gone, since this was last asked, before they had arrived."""
        return self._tail.missed()

    async def load(self) -> Load | None:
        """The next rows, once the last are kept; nothing when all have arrived."""
        while (load := await self._beside(self._load)) and not load.rows:
            await self.keep(load)  # still on the way to where reading goes on, or blank lines
        return load

    async def keep(self, load: Load) -> None:
        """All of these have arrived."""
        await self._beside(lambda: self._keep(load))

    async def look(self) -> None:
        """See how much there is by now."""
        await self._beside(lambda: self._tail.look() and None)

    async def close(self) -> None:
        """Note how far everything has come."""
        await self._beside(self._close)
        self._thread.shutdown(wait=False)

    def _load(self) -> Load | None:
        piece = self._tail.next()
        if piece is None:
            self._save()
            return None
        rows = [{**columns(line), "source": self._source} for line in piece.lines if line.strip()]
        return Load(piece, rows)

    def _keep(self, load: Load) -> None:
        self._tail.keep(load.piece)
        if time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        try:
            self._marks.save()
        except OSError as error:
            why = f"{error.strerror}; the next start sends again what is there"
            self._troubles.append(f"{self._marks.path} cannot be written: {why}")

    def _close(self) -> None:
        self._save()
        self._tail.close()

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


PART: Final = "record table"
"""What readiness calls it; no server can have a name with a space."""

_LOOK_SECONDS: Final = 1.0
"""How often the file is looked at when there was nothing new in it."""

_REST_SECONDS: Final = 0.02
"""After every statement: with days to make up for, the processor is still there for cycles."""

_QUIET_SECONDS: Final = 30.0
"""After so long without a line the table is asked whether it would take one."""

_MOST_ROWS: Final = 50
"""In one statement: to put so many into its form takes the loop a millisecond."""

_LAST_SECONDS: Final = 2.0
"""For so long the rest is carried there at the end."""

_FAREWELL_SECONDS: Final = 0.5

_MOST_TROUBLES: Final = 1_000
_CONNECTING: Final = "connecting"
_WORKING: Final = "working"
_GOES_ON: Final = "the record goes on in its file, and is sent when this is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What to carry, and where to."""

    record: Path
    dsn: str = field(repr=False)


class Shipper:
    """Keeps the table as far as the file."""

    def __init__(
        self, shipment: Shipment, *, log: Log, gauges: CopyGauges, alarm: Callable[[str, str], None]
    ) -> None:
        self._dsn = shipment.dsn
        self._backlog = Backlog(shipment.record, target_of(shipment.dsn))
        self._log = log.bind(record=str(shipment.record))
        self._gauges = gauges
        self._alarm = alarm
        self._ending = Flag()
        self._table: RecordTable | None = None
        self._load: Load | None = None
        self._most = _MOST_ROWS
        self._served = False
        self._asked_at = 0.0
        self._state = _CONNECTING
        self._why = ""
        self._told = set[str]()

    def reasons(self) -> Mapping[str, str]:
        """Why the table lags, for whoever asks how the service stands; that makes it no less ready."""
        if self._state == _WORKING:
            return {}
        return {PART: f"{self._state}: {self._why}" if self._why else self._state}

    async def run(self, stop: asyncio.Event) -> None:
        """Carry until the stop; then for a moment the rest."""
        work = asyncio.ensure_future(self._work())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            self._ending.set()
            await asyncio.wait((work,), timeout=_LAST_SECONDS)
            if self._table:
                # Not cancelled: that would first ask a server that does not answer to end the statement.
                self._table.cut()
                await asyncio.wait((work,), timeout=_FAREWELL_SECONDS)
        finally:
            stopped.cancel()
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await self._close()

    async def _work(self) -> None:
        await reconnecting(
            self._serve,
            sleep=lambda delay: pause(delay, self._ending),
            report=lambda error, _: self._away(error),
            stopped=self._ending.is_set,
        )

    async def _serve(self) -> None:
        self._served = False
        await self._look()
        try:
            self._table = await RecordTable.open(self._dsn)
            await self._reached(self._table)
            while True:
                ending = self._ending.is_set()
                if not await self._ship(self._table) and ending:
                    return
        except ServerError as lost:
            if not self._served:
                raise
            self._away(lost)
            await pause(_LOOK_SECONDS, self._ending)
        finally:
            table, self._table = self._table, None
            self._gauges.connected = False
            if table:
                await table.close()

    async def _ship(self, table: RecordTable) -> bool:
        """Send the next load; false when there is none, after a while in which one may come."""
        self._load = self._load or await self._backlog.load()
        self._measure()
        if self._load is None:
            await self._keep_asking(table)
            await pause(_LOOK_SECONDS, self._ending)
            return False
        await self._send(self._load, table)
        await self._backlog.keep(self._load)
        self._load = None
        self._measure()
        return True

    async def _send(self, load: Load, table: RecordTable) -> None:
        while rows := load.rows[load.arrived : load.arrived + self._most]:
            try:
                await table.add(rows)
            except ServerError:
                # A server too slow for so many within its limit may be fast enough for fewer.
                self._most = max(len(rows) // 2, 1)
                raise
            load.arrived += len(rows)
            self._served = True
            self._most = min(self._most + 1, _MOST_ROWS)
            self._asked_at = time.monotonic()
            self._gauges.arrived(len(rows))
            self._gauges.oldest = load.oldest
            await pause(_REST_SECONDS, self._ending)

    async def _keep_asking(self, table: RecordTable) -> None:
        if time.monotonic() - self._asked_at > _QUIET_SECONDS:
            await table.add(())
            self._asked_at = time.monotonic()
            self._gauges.arrived(0)

    async def _look(self) -> None:
        """While the table is away, see how far it lags."""
        if self._load is None:
            self._load = await self._backlog.load()
        else:
            await self._backlog.look()
        self._measure()

    def _measure(self) -> None:
        self._gauges.waiting = self._backlog.waiting
        self._gauges.oldest = self._load.oldest if self._load else None
        for trouble in self._backlog.troubles():
            if trouble not in self._told and len(self._told) < _MOST_TROUBLES:
                self._told.add(trouble)
                self._gauges.failures["file"] += 1
                self._log.warning(events.AUDIT_TABLE_TROUBLE, why=trouble)
        if missed := self._backlog.missed():
            self._gauges.failures["missed"] += missed
            why = "removed before all of it had arrived in the table"
            self._log.error(events.AUDIT_TABLE_MISSED, copies=missed, why=why)
            self._alarm(PART, why)

    async def _reached(self, table: RecordTable) -> None:
        for why, mend in await table.doubts():
            if why not in self._told:
                self._told.add(why)
                self._log.warning(events.AUDIT_TABLE_TROUBLE, why=why, mend=mend)
        self._gauges.connected = True
        self._gauges.arrived(0)
        self._asked_at = time.monotonic()
        if self._state != _WORKING:
            self._log.info(events.AUDIT_TABLE_REACHED, at=table.where, bytes_waiting=self._gauges.waiting)
        self._state, self._why = _WORKING, ""

    def _away(self, error: BaseException | None) -> None:
        """Told when it begins, and when it becomes another trouble; it may last for days."""
        state = "refused" if isinstance(error, Refused) else "away"
        self._gauges.failures[state] += 1
        self._why = str(error)
        if state != self._state:
            event = events.AUDIT_TABLE_DENIED if state == "refused" else events.AUDIT_TABLE_UNREACHABLE
            self._log.error(event, why=self._why, so=_GOES_ON)
            self._alarm(PART, f"{state}: {self._why}")
        self._state = state

    async def _close(self) -> None:
        self._load = self._load if self._load and self._load.arrived < len(self._load.rows) else None
        await self._backlog.look()
        await self._backlog.close()
        self._measure()
        if self._load or self._gauges.waiting:
            self._log.warning(
                events.AUDIT_TABLE_BEHIND, bytes_waiting=self._gauges.waiting, so="the next start goes on"
            )
