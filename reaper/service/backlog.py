"""What of the record has not arrived in the table yet, read in a thread: no cycle waits for a disk."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from socket import gethostname
from typing import Final, TypeVar

from reaper.record.columns import columns
from reaper.record.marks import Marks
from reaper.record.reading import Piece
from reaper.record.tail import Tail

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
