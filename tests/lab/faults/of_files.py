"""Faults of the policy file and of the audit log."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from reaper.telemetry import events
from tests.lab.world.isolation import Isolation, mount, unmount

from .of_reaper import full_disk
from .rounds import Fault, fault
from .supervised import SupervisedReaper
from .world import Expectation, FaultWorld

_HELD: Final = (0.0, 5.0)
_BRIEFLY: Final = (0.0, 2.0)
_LIMITS: Final = 4.0
_ALLOWLISTED: Final = "metabase"
_NONSENSE: Final = (
    "version: 1\npolicies: [",
    "version: 1\npolicies:\n  - {name: leaked, mode: enforce, match: {state: [idle], role: ['*']}}\n",
    "version: 1\npolicies:\n  - {name: all, mode: enforce, mach: {state: [idle], idle_for: 0s}}\n",
    "",
    "\0\x01\x02",
    "a: &a [x, x]\nb: &b [*a, *a]\nversion: 1\n",
)


def _spoiled(name: str, spoil: Callable[[FaultWorld, Path], object]) -> Fault:
    """The file is bad: the last good one stays in force, and a reaper that starts now refuses to."""

    @fault(name, "policies", may_end_reapers=True)
    async def spoiled(world: FaultWorld) -> AsyncIterator[None]:
        try:
            refused = Expectation(world, events.RELOAD_REFUSED)
            for path in world.rule_files:
                spoil(world, path)
            await refused.wait(name)
            await world.hold(*_HELD)
            yield
        finally:
            world.change_rules()

    return spoiled


def _cut_off(world: FaultWorld, path: Path) -> None:
    text = world.current_rules
    path.write_text(text[: _middle_of_a_line(text, world.dice)], encoding="utf-8")


def _middle_of_a_line(text: str, dice: Random) -> int:
    if dice.random() < 0.5:
        # The worst place: an allowlist that no longer matches any session.
        return text.index(_ALLOWLISTED) + dice.randrange(1, len(_ALLOWLISTED))
    return dice.choice([at for at in range(1, len(text)) if text[at - 1] != "\n"])


@fault("mode dry-run, and back", "policies", "reaper")
async def dry_run(world: FaultWorld) -> AsyncIterator[None]:
    """A file in which all policies are a dry run replaces the usual one, and no session may be terminated."""
    try:
        reloaded = Expectation(world, events.RELOADED)
        world.change_rules(mode="dry-run")
        if await reloaded.wait("mode dry-run, and back"):
            async with world.quiet("while all policies were a dry run"):
                await asyncio.sleep(_LIMITS)
        yield
    finally:
        world.change_rules()


def _no_disk(place: Isolation) -> str:
    return "" if place.own_mounts else "root, for a small disk of its own"


@fault("audit disk full", "audit", may_end_reapers=True, missing=_no_disk)
async def disk_full(world: FaultWorld) -> AsyncIterator[None]:
    """The disk of the audit log has no room left, or room for a few bytes."""
    failed = Expectation(world, events.AUDIT_FAILED)
    with full_disk(world.leader.disk, world.dice.choice((0, 0, 4096, 8192))):
        await failed.wait("audit disk full")
        await world.hold(*_HELD)
        yield


def _writes_all(place: Isolation) -> str:
    # Permissions do not stop root.
    return "" if place.own_mounts or os.geteuid() != 0 else "mounts of its own"


@fault("audit folder read-only", "audit", may_end_reapers=True, missing=_writes_all)
async def read_only(world: FaultWorld) -> AsyncIterator[None]:
    """The folder becomes read-only, and the file has to be opened again."""
    reaper = world.leader
    failed = Expectation(world, events.AUDIT_FAILED)
    with _read_only(reaper.audit, by_mount=world.place.own_mounts):
        await reaper.hang_up()
        await failed.wait("audit folder read-only")
        await world.hold(*_HELD)
        yield


@contextmanager
def _read_only(audit: Path, *, by_mount: bool) -> Iterator[None]:
    folder = audit.parent
    if by_mount:
        assert mount("--bind", str(folder), str(folder))
        assert mount("-o", "remount,bind,ro", str(folder))
    else:
        audit.chmod(0o400)
        folder.chmod(0o500)
    try:
        yield
    finally:
        if by_mount:
            unmount(folder)
        else:
            folder.chmod(0o755)
            audit.chmod(0o640)


@fault("audit folder removed", "audit", "reaper", may_end_reapers=True)
async def removed(world: FaultWorld) -> AsyncIterator[None]:
    """The folder disappears with everything in it, and an empty one comes later."""
    reaper = world.leader
    failed = Expectation(world, events.AUDIT_FAILED)
    try:
        with reaper.paused():
            _keep(reaper)
            shutil.rmtree(reaper.audit.parent)
            reaper.cuts = 0  # gone with everything else
        await failed.wait("audit folder removed")
        await world.hold(*_HELD)
        yield
    finally:
        reaper.audit.parent.mkdir(exist_ok=True)


def _changed(name: str, change: Callable[[FaultWorld, SupervisedReaper], object], *touches: str) -> Fault:
    """The audit log is changed a few times, and the reaper writes on."""

    @fault(name, "audit", *touches)
    async def changed(world: FaultWorld) -> AsyncIterator[None]:
        reaper = world.leader
        for _ in range(world.size.repeats):
            await world.hold(*_BRIEFLY)
            change(world, reaper)
            if not touches and world.dice.random() < 0.5:
                await reaper.hang_up()
        await Expectation(world, events.CYCLE_ACTED).wait(name)
        yield

    return changed


def _rename(_: FaultWorld, reaper: SupervisedReaper) -> None:
    """Rotate it as logrotate does; a signal may follow."""
    with suppress(FileNotFoundError):  # just rotated, and nothing was written since
        if reaper.audit.stat().st_size:
            _renumber(reaper.audit)
            reaper.audit.rename(_rotated(reaper.audit, 1))


def _copy_and_truncate(_: FaultWorld, reaper: SupervisedReaper) -> None:
    """Rotate it as logrotate's copytruncate does, if nothing is written between the two steps."""
    with reaper.paused():
        _renumber(reaper.audit)
        shutil.copy2(reaper.audit, _rotated(reaper.audit, 1))
        os.truncate(reaper.audit, 0)


def _truncate(world: FaultWorld, reaper: SupervisedReaper) -> None:
    """Cut off the end, in the middle of a line; what is lost stays lost."""
    with reaper.paused():
        _keep(reaper)
        size = reaper.audit.stat().st_size
        rest = world.dice.randrange(size + 1)
        os.truncate(reaper.audit, rest)
        reaper.cuts += rest < size


def _keep(reaper: SupervisedReaper) -> None:
    """Copy for the judge what is about to be lost, outside of the folder of rotated files."""
    targets = (reaper.disk / f"lost-{number}" for number in count())
    shutil.copytree(reaper.audit.parent, next(each for each in targets if not each.exists()))


def _renumber(audit: Path) -> None:
    """Give each rotated file the next number, as logrotate does."""
    free = next(number for number in count(1) if not _rotated(audit, number).exists())
    for number in range(free, 1, -1):
        _rotated(audit, number - 1).rename(_rotated(audit, number))


def _rotated(audit: Path, number: int) -> Path:
    return audit.with_name(f"{audit.name}.{number}")


def _break(world: FaultWorld, path: Path) -> None:
    path.write_text(world.dice.choice(_NONSENSE), encoding="utf-8")


FAULTS: Final[Sequence[Fault]] = (
    _spoiled("policy file half-written", _cut_off),
    _spoiled("policy file broken", _break),
    _spoiled("policy file removed", lambda _, path: path.unlink()),
    *(dry_run, disk_full, read_only, removed),
    _changed("audit rotated by renaming", _rename),
    _changed("audit copied and truncated", _copy_and_truncate, "reaper"),
    _changed("audit truncated", _truncate, "reaper"),
)
