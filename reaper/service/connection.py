"""Connects to a server, probes it, and prepares what its cycles or a single observation need."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from reaper import __version__
from reaper.audit.ledger import Author, Ledger
from reaper.config import Server, Settings
from reaper.insight.advice.server_facts import ServerFacts
from reaper.policy.rules import Rules
from reaper.policy.session import Snapshot
from reaper.policy.time import SECOND, Duration
from reaper.postgres.connection import Connection
from reaper.postgres.leadership import LeaderLock
from reaper.postgres.observer import Observer
from reaper.postgres.preflight import CheckResult, Probe, inspect, probe, refuse
from reaper.postgres.query_text import QueryText
from reaper.postgres.server_facts import read_server_facts
from reaper.postgres.terminator import DryRunTerminator, GuardedTerminator
from reaper.service.clock import ClockWatch
from reaper.service.cycle import CycleContext, Terminators

_LOOKAHEAD_INTERVALS: Final = 2
_LEASE_INTERVALS: Final = 3
_MIN_LEASE: Final = Duration(15 * SECOND)
# Through a pooler, or without the right to see all sessions, a snapshot would look complete and be wrong.
_MISLEADING: Final = frozenset({"pooler", "visibility", "version"})
_MAX_SNAPSHOTS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of the command line that apply to every server, beside the policy file."""

    dry_run: bool = False
    query_text: QueryText = QueryText.NONE
    tuned: bool = True
    """Set our own keepalives and timeouts; without them the connection shows the server's settings."""

    @property
    def leader_lock(self) -> LeaderLock:
        """The lock to lead with: a dry run has its own, so that it does not keep an enforcing reaper out."""
        return LeaderLock.DRY_RUN if self.dry_run else LeaderLock.ENFORCING


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection:
    """A connection with the result of its probe."""

    connection: Connection
    probe: Probe
    findings: tuple[CheckResult, ...]
    observer: Observer


@asynccontextmanager
async def opened(
    server: Server, rules: Rules | None, options: RunOptions, *, lease: Duration | None = None
) -> AsyncIterator[OpenConnection]:
    """Connect and probe; the findings may contain refusals, which the caller handles."""
    connection = await Connection.open(server.dsn, lease=lease, tuned=options.tuned)
    try:
        probed = await probe(connection)
        yield OpenConnection(
            connection=connection,
            probe=probed,
            findings=inspect(connection, probed, rules, dry_run=options.dry_run),
            observer=Observer(connection, probed, server=server.name, query_text=options.query_text),
        )
    finally:
        await connection.close()


async def inspect_again(at: OpenConnection, rules: Rules, options: RunOptions) -> OpenConnection:
    """Probe the same connection again: the rules, or the rights of the role, may have changed."""
    probed = await probe(at.connection)
    # The same observer: it remembers what it read in its last snapshot.
    at.observer.know(probed)
    return replace(at, probe=probed, findings=inspect(at.connection, probed, rules, dry_run=options.dry_run))


def cycle_context(
    server: Server,
    at: OpenConnection,
    rules: Rules,
    options: RunOptions,
    ledger: Ledger,
    *,
    clock: ClockWatch,
    ahead: Duration | None = None,
) -> CycleContext:
    """Return what cycles need over this connection; Refused, with the fix, if the server cannot be served."""
    refuse(at.findings)
    # The only difference of --dry-run: no terminator that can send a signal exists.
    dry_run = DryRunTerminator()
    enforce = dry_run if options.dry_run else GuardedTerminator(at.connection)
    return CycleContext(
        observer=at.observer,
        terminators=Terminators(enforce=enforce, dry_run=dry_run),
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
    """Return how far a snapshot looks ahead: beyond the next cycle, which may be late."""
    return Duration(_LOOKAHEAD_INTERVALS * settings.interval)


def lease_duration(settings: Settings) -> Duration:
    """Return how long the connection may be silent before the server ends it, and with it the lead."""
    return Duration(max(_LEASE_INTERVALS * settings.interval, _MIN_LEASE))


@asynccontextmanager
async def open_to_observe(
    server: Server, options: RunOptions, *, lease: Duration | None = None
) -> AsyncIterator[OpenConnection]:
    """Connect, and raise Refused if a snapshot over this connection would be misleading."""
    async with opened(server, None, options, lease=lease) as at:
        refuse(tuple(found for found in at.findings if found.check in _MISLEADING))
        yield at


def snapshot_interval(span: Duration) -> Duration:
    """Return the time between two snapshots: a second, or longer if that would be more than 60 snapshots."""
    return max(Duration(SECOND), Duration(span // _MAX_SNAPSHOTS))


async def observe_for(
    server: Server, span: Duration, add: Callable[[Snapshot], None], advance: Callable[[float], None]
) -> tuple[ServerFacts, ServerFacts]:
    """Pass a snapshot to `add` each interval during `span`; return the server's facts before and after."""
    loop = asyncio.get_running_loop()
    # Without keepalives and timeouts of our own: the settings read here must be those of all other sessions.
    async with open_to_observe(server, RunOptions(dry_run=True, tuned=False)) as at:
        before = await read_server_facts(at.connection, at.probe)
        began = loop.time()
        while (left := span / SECOND - (loop.time() - began)) > 0:
            add(await at.observer.all_sessions())
            pause = min(left, snapshot_interval(span) / SECOND)
            await asyncio.sleep(pause)
            advance(pause)
        # Advisory locks and blocked sessions are expensive to read: the last snapshot alone has them.
        add(await at.observer.observe(None))
        return before, await read_server_facts(at.connection, at.probe)
