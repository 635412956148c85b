"""The reaper at one real server, driven step by step by tests that are not asynchronous themselves."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar

from reaper.policy.decide import decide
from reaper.policy.match import Match
from reaper.policy.memory import Memory
from reaper.policy.plan import Candidate, Decision, Outcome, Plan, Result, Skip
from reaper.policy.rules import Action, Mode, Policy, Rules
from reaper.policy.selector import NO_KEYS, Glob, Selector
from reaper.policy.session import ACTIVE, IDLE, Session, SessionId, Snapshot
from reaper.policy.time import Duration, Timestamp, from_datetime
from reaper.postgres.connection import Connection
from reaper.postgres.observer import Observer
from reaper.postgres.preflight import Probe, probe
from reaper.postgres.query_text import QueryText
from reaper.postgres.terminator import GuardedTerminator

from .clients import Client
from .waiting import until

T = TypeVar("T")

NOW: Final = Duration(0)
"""A limit that every session has reached."""
DAY: Final = Duration(86_400_000_000)
"""A limit that no session reaches while a test runs."""
AT_ONCE: Final = Match(states=(IDLE,), idle_for=NOW)


class Reaper:
    """One connection of the reaper, with everything that observes and acts through it."""

    def __init__(
        self,
        dsn: str,
        *,
        query_text: QueryText = QueryText.NONE,
        lease: Duration | None = None,
        tuned: bool = True,
    ) -> None:
        self._runner = asyncio.Runner()
        try:
            self.link: Connection = self.do(Connection.open(dsn, lease=lease, tuned=tuned))
            self.probe: Probe = self.do(probe(self.link))
        except BaseException:
            self._runner.close()
            raise
        self.observer = Observer(self.link, self.probe, server="test", query_text=query_text)
        self.terminator = GuardedTerminator(self.link)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.link.close())
        self._runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end."""
        return self._runner.run(work)

    def rows(self, sql: str, params: Mapping[str, object] | tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement on the reaper's own connection."""
        return self.do(self.link.rows(sql, params))

    def look(self, *policies: Policy) -> Snapshot:
        """Take a snapshot, with the facts that these policies need; with every fact when there are none."""
        return self.do(self.observer.observe(Rules(policies=policies) if policies else None))

    def see(self, client: Client) -> Session:
        """This client's session, as a snapshot shows it."""
        return seen(self.look(), client)

    def plan(self, *policies: Policy, protect: Selector = NO_KEYS) -> Plan:
        """The plan for a snapshot, as if every session had been observed before."""
        snapshot = self.look(*policies)
        rules = Rules(policies=policies, protect=protect)
        return decide(snapshot=snapshot, rules=rules, memory=Memory.of(snapshot))

    def decision(self, client: Client, *policies: Policy) -> Decision:
        """The decision about this client."""
        return next(each for each in self.plan(*policies).decisions if each.session.id == identity(client))

    def skipped(self, client: Client, *policies: Policy) -> Skip:
        """The decision to skip this client; any other one fails the test."""
        decision = self.decision(client, *policies)
        assert isinstance(decision, Skip), decision
        return decision

    def chosen(self, client: Client, *policies: Policy) -> Candidate:
        """The decision to terminate or cancel this client; any other one fails the test."""
        self.rest(client)
        decision = self.decision(client, *policies)
        assert isinstance(decision, Candidate), decision
        return decision

    def rest(self, client: Client) -> None:
        """Wait until this session runs a statement or waits for its client."""
        # The server reports it as idle a moment before it waits, and the guard requires that it waits.

        def rests() -> bool:
            session = self.see(client)
            return session.state == ACTIVE or session.wait_event == "ClientRead"

        until(rests)

    def signal(self, candidate: Candidate, *, answered_ago: Duration = NOW) -> Outcome:
        """Check and signal, as if the server's last answer were that old; nothing is confirmed yet."""
        return self.do(self.terminator.terminate(candidate, answered_at=Timestamp(now() - answered_ago)))

    def confirm(self, *candidates: Candidate) -> list[Outcome]:
        """The outcomes, in the order in which they were confirmed."""

        async def outcomes() -> list[Outcome]:
            return [outcome async for ends in self.terminator.confirm(candidates) for _, outcome in ends]

        return self.do(outcomes())

    def act(self, candidate: Candidate) -> Outcome:
        """Signal, and confirm what was sent."""
        outcome = self.signal(candidate)
        if outcome.result is not Result.SIGNALLED:
            return outcome
        (confirmed,) = self.confirm(candidate)
        return confirmed


def now() -> Timestamp:
    """The time of the servers, which run on this host."""
    return from_datetime(datetime.now(UTC))


def policy(application: str, match: Match = AT_ONCE, *, overrides: Sequence[str] = ()) -> Policy:
    """An enforcing policy for this application's sessions, without limits; `replace` adds the rest."""
    selector = replace(match.selector, application=(Glob(application),))
    return Policy(
        name="test",
        match=replace(match, selector=selector),
        mode=Mode.ENFORCE,
        overrides=frozenset(overrides),
        max_per_cycle=1_000,
        safety_limit=None,
    )


def cancelling(application: str) -> Policy:
    """An enforcing policy that cancels whatever this application's sessions are running."""
    running = Match(states=("active",), running_for=NOW)
    return replace(policy(application, running), action=Action.CANCEL)


def identity(client: Client) -> SessionId:
    """The id of the client's session."""
    return SessionId(client.pid, from_datetime(client.backend_start))


def seen(snapshot: Snapshot, client: Client) -> Session:
    """This client's session in a snapshot."""
    (found,) = [session for session in snapshot.sessions if session.id == identity(client)]
    return found
