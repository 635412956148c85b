"""From a connection string to a station at which cycles can run: connect, probe, refuse or begin."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from reaper import __version__
from reaper.audit.ledger import Author, Ledger
from reaper.config import Server, Settings
from reaper.policy.rules import Rules
from reaper.policy.time import SECOND, Duration
from reaper.postgres.connection import Connection
from reaper.postgres.leadership import LeaderLock
from reaper.postgres.observer import Observer
from reaper.postgres.preflight import CheckResult, Probe, inspect, probe, refuse
from reaper.postgres.query_text import QueryText
from reaper.postgres.terminator import DryRunTerminator, GuardedTerminator
from reaper.service.clock import ClockWatch
from reaper.service.cycle import CycleContext, Terminators

_FORESIGHT_INTERVALS: Final = 2
_LEASE_INTERVALS: Final = 3
_SHORTEST_LEASE: Final = Duration(15 * SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the reaper goes about it, whatever the policy file says."""

    dry_run: bool = False
    query_text: QueryText = QueryText.NONE
    tuned: bool = True
    """Whether our connection has keepalives of its own; those of everybody else can only be read without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection:
    """A connection that was looked at."""

    link: Connection
    probe: Probe
    findings: tuple[CheckResult, ...]
    observer: Observer


@asynccontextmanager
async def opened(
    server: Server, rules: Rules | None, options: RunOptions, *, lease: Duration | None = None
) -> AsyncIterator[OpenConnection]:
    """Connect, probe and judge; the caller decides what a refusal means."""
    link = await Connection.open(server.dsn, lease=lease, tuned=options.tuned)
    try:
        seen = await probe(link)
        yield OpenConnection(
            link=link,
            probe=seen,
            findings=inspect(link, seen, rules, dry_run=options.dry_run),
            observer=Observer(link, seen, server=server.name, query_text=options.query_text),
        )
    finally:
        await link.close()


async def inspect_again(at: OpenConnection, rules: Rules, options: RunOptions) -> OpenConnection:
    """The same connection under rules that are new to it, or with rights that are no longer the same."""
    seen = await probe(at.link)
    at.observer.know(seen)
    return replace(at, probe=seen, findings=inspect(at.link, seen, rules, dry_run=options.dry_run))


def station(
    server: Server,
    at: OpenConnection,
    rules: Rules,
    options: RunOptions,
    ledger: Ledger,
    *,
    clock: ClockWatch,
    ahead: Duration | None = None,
) -> CycleContext:
    """Take post, or raise Refused with what has to be mended first."""
    refuse(at.findings)
    dry_run = DryRunTerminator()
    return CycleContext(
        observer=at.observer,
        terminators=Terminators(
            enforce=dry_run if options.dry_run else GuardedTerminator(at.link), dry_run=dry_run
        ),
        ledger=ledger,
        author=Author(
            version=__version__,
            host=socket.gethostname(),
            by=at.probe.role,
            server=server.name,
            rules=rules.digest,
            dry_run=options.dry_run,
        ),
        clock=clock,
        ahead=ahead,
    )


def lookahead(settings: Settings) -> Duration:
    """How far a snapshot looks ahead: beyond the next cycle, which may be late."""
    return Duration(_FORESIGHT_INTERVALS * settings.interval)


def lease_duration(settings: Settings) -> Duration:
    """For how long a reaper may be silent before the server takes it for frozen, and its lead away."""
    return Duration(max(_LEASE_INTERVALS * settings.interval, _SHORTEST_LEASE))


def office_of(options: RunOptions) -> LeaderLock:
    """What to lead: a rehearsal has a lead of its own, and does not stand in the way of who acts."""
    return LeaderLock.DRY_RUN if options.dry_run else LeaderLock.ENFORCING
