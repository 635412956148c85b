"""What can become of the record: no room for it, not to be written, rotated, cut off, gone."""

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from reaper.telemetry import events

from .campaign import NewFault
from .contract import Excuse
from .place import Place, mount, unmount
from .replica import Replica
from .watch import Bite
from .world import World

_HELD: Final = (0.0, 5.0)
_BRIEF: Final = (0.0, 2.0)
_BLOCK: Final = 1024 * 1024
_NO_FOLDER: Final = 0o500
_FOLDER: Final = 0o755
_COPIES: Final = 3


@contextmanager
def _pen_stopped(record: Path) -> Iterator[None]:
    """Nobody writes meanwhile."""
    with record.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _set_aside(replica: Replica) -> None:
    """Keep what is about to be lost, for the judge; not where the reaper looks for rotated copies."""
    free = (replica.disk / f"lost-{number}" for number in count())
    shutil.copytree(replica.record.parent, next(each for each in free if not each.exists()))


class _Ruined:
    touches = frozenset({"record"})
    # One that begins now has nowhere to write, and refuses to.
    excuse = Excuse.ENDS_REAPERS
    name: str

    def __init__(self) -> None:
        self._replica: Replica | None = None

    async def inflict(self, world: World) -> None:
        self._replica = replica = world.leader
        bite = Bite(world, events.RECORD_FAILED)
        await self._ruin(world, replica)
        await bite.awaited(self.name)
        await asyncio.sleep(world.dice.uniform(*_HELD))

    async def mend(self, _: World) -> None:
        if self._replica:
            self._repair(self._replica)

    async def _ruin(self, world: World, replica: Replica) -> None:
        raise NotImplementedError

    def _repair(self, replica: Replica) -> None:
        raise NotImplementedError


class FullDisk(_Ruined):
    """Not a byte more fits on the disk of the record; at times a few do."""

    name = "audit disk full"

    def missing(self, place: Place) -> str:
        return "" if place.own_mounts else "root, for a small disk of its own"

    async def _ruin(self, world: World, replica: Replica) -> None:
        with (replica.disk / "ballast").open("ab", buffering=0) as ballast:
            await asyncio.to_thread(_fill, ballast.fileno())
            ballast.truncate(ballast.tell() - world.dice.choice((0, 0, 4096, 8192)))

    def _repair(self, replica: Replica) -> None:
        (replica.disk / "ballast").unlink(missing_ok=True)


class ReadOnlyRecord(_Ruined):
    """Its folder can only be read from now on, and the file is to be opened again."""

    name = "audit folder read-only"

    def __init__(self) -> None:
        super().__init__()
        self._mounted = False

    def missing(self, place: Place) -> str:
        # What root may not write for want of a permission it writes all the same.
        return "" if place.own_mounts or os.geteuid() != 0 else "mounts of its own"

    async def _ruin(self, world: World, replica: Replica) -> None:
        folder = replica.record.parent
        self._mounted = world.place.own_mounts
        if self._mounted:
            assert mount("--bind", str(folder), str(folder))
            assert mount("-o", "remount,bind,ro", str(folder))
        else:
            replica.record.chmod(0o400)
            folder.chmod(_NO_FOLDER)
        await replica.hang_up()

    def _repair(self, replica: Replica) -> None:
        if self._mounted:
            unmount(replica.record.parent)
        else:
            replica.record.parent.chmod(_FOLDER)
            replica.record.chmod(0o640)


class RemovedFolder(_Ruined):
    """The folder of the record is moved away, with all that is in it, and an empty one comes later."""

    name = "audit folder removed"
    touches = frozenset({"record", "reaper"})

    async def _ruin(self, _: World, replica: Replica) -> None:
        with _pen_stopped(replica.record):
            _set_aside(replica)
            shutil.rmtree(replica.record.parent)
            replica.cuts = 0  # gone with all else

    def _repair(self, replica: Replica) -> None:
        replica.record.parent.mkdir(exist_ok=True)


class RotatedRecord:
    """As logrotate does: renamed, a few times, with a signal afterwards or without."""

    name = "audit rotated by renaming"
    touches = frozenset({"record"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        replica = world.leader
        for _ in range(world.size.blows):
            await asyncio.sleep(world.dice.uniform(*_BRIEF))
            _rotate(replica.record)
            if world.dice.random() < 0.5:
                await replica.hang_up()
        bite = Bite(world, events.CYCLE_ACTED)
        await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        """There is nothing to be mended."""


class CopiedAndTruncated:
    """As logrotate's copytruncate does, if nothing is written between the two."""

    name = "audit copied and truncated"
    touches = frozenset({"record"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        replica = world.leader
        for _ in range(world.size.blows):
            await asyncio.sleep(world.dice.uniform(*_BRIEF))
            with _pen_stopped(replica.record):
                _make_room(replica.record)
                shutil.copy2(replica.record, _copy(replica.record, 1))
                _cut(replica.record, 0)
        bite = Bite(world, events.CYCLE_ACTED)
        await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        """There is nothing to be mended."""


class TruncatedRecord:
    """Somebody cuts off the end of the record, in the middle of a line."""

    name = "audit truncated"
    touches = frozenset({"record", "reaper"})
    excuse = Excuse.NOTHING

    async def inflict(self, world: World) -> None:
        replica = world.leader
        for _ in range(world.size.blows):
            await asyncio.sleep(world.dice.uniform(*_BRIEF))
            with _pen_stopped(replica.record):
                _set_aside(replica)
                size = replica.record.stat().st_size
                rest = world.dice.randrange(size + 1)
                _cut(replica.record, rest)
                replica.cuts += rest < size
        bite = Bite(world, events.CYCLE_ACTED)
        await bite.awaited(self.name)

    async def mend(self, _: World) -> None:
        """There is nothing to be mended: what is lost is lost, and the record says so."""


def _rotate(record: Path) -> None:
    with suppress(FileNotFoundError):  # a moment ago it was rotated, and nothing was written since
        if record.stat().st_size:
            _make_room(record)
            record.rename(_copy(record, 1))


def _make_room(record: Path) -> None:
    """Number the copies anew, as logrotate does."""
    numbers = count(1)
    newest_free = next(number for number in numbers if not _copy(record, number).exists())
    for number in range(newest_free, 1, -1):
        _copy(record, number - 1).rename(_copy(record, number))


def _copy(record: Path, number: int) -> Path:
    return record.with_name(f"{record.name}.{number}")


def _cut(record: Path, size: int) -> None:
    with record.open("r+b") as file:
        file.truncate(size)


def _fill(descriptor: int) -> None:
    """To the last byte."""
    size = _BLOCK
    while size:
        try:
            os.write(descriptor, b"\0" * size)
        except OSError as full:
            if full.errno != errno.ENOSPC:
                raise
            size //= 2


FAULTS: Final[Sequence[NewFault]] = (
    FullDisk,
    ReadOnlyRecord,
    RemovedFolder,
    RotatedRecord,
    CopiedAndTruncated,
    TruncatedRecord,
)
