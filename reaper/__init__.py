"""pg-idle-reaper: ends idle PostgreSQL sessions by policy. This page is the map of the code.

One cycle, in `service/cycle.py`:

    rules ─────────────┐
    server ── observe ─┴─> Snapshot ── decide ──> Plan ── log intents ──> (on disk) ─┐
              log, metrics <── log outcomes <── Outcomes <── terminate ──────────────┘

A dry run is another terminator: everything else is the same. `service/server_loop.py` runs a cycle at least
every `interval`, and earlier when a session becomes due. No session is terminated at first sight.

The packages; each imports only from the lines below it:

    cli         one file for each command: parse, call, print
    demo        `reaper demo`: an embedded server, clients, and the screen
    service     when: the daemon, one loop for each server, reload, reports, status, high availability
    config      the policy file: YAML to settings, every mistake with its line and column
    postgres    all SQL: connect, observe, terminate, lead
    audit       the audit log: write, read, verify, reconcile, follow
    history     snapshots over time, kept in files
    telemetry   the service's log, metrics, HTTP port, systemd and webhooks
    insight     pure: usage, advice, results of dry runs, backtest
    policy      pure: what to terminate. Snapshot and rules to a plan

The kernel is the code that can end a session. A security review reads these files, at most 3,000 lines:

    policy/time.py               timestamps and durations, in the server's microseconds
    policy/session.py            a session, its identity, a snapshot
    policy/selector.py           globs and networks
    policy/match.py              the criteria of a policy
    policy/rules.py              policies as the file states them
    policy/protections.py        the sessions that no policy touches
    policy/plan.py               candidate, skip, outcome, plan
    policy/memory.py             what a cycle remembers for the next
    policy/refill_guard.py       pools that reopen every session
    policy/limits.py             the limits of a policy
    policy/decide.py             snapshot, rules and memory to a plan
    postgres/observer.py         takes a snapshot
    postgres/terminator.py       checks a session again and signals it
    postgres/sql/guard.sql       the same, in the statement that signals
    audit/ledger.py              intents before signals, outcomes after them
    audit/file.py                the file in which they are durable
    service/cycle.py             the five steps

The words, the same in code, commands, log and metrics:

    session        one client backend, identified by (pid, backend_start)
    candidate      a session that a policy matches and does not skip
    skip           a session that is not touched, with its reason
    protected      skipped by a built-in protection or by `protect`
    dry run        a decision without the act
    limit          max_per_cycle, safety_limit, max_sessions, keep
    refill guard   pauses a policy for a pool that reopens every session
    intent         what is about to happen, in the audit log before the signal
    outcome        what happened, in the audit log after it
    snapshot       one observation of a server
    prefilter      what the statement of a snapshot leaves out, because no policy can match it
    assess         judge by the results of a dry run whether a policy is safe
    history        snapshots in files, for `backtest` and `advise`
    leader         the one reaper that acts at a server; the others are standbys
    unreachable, denied, unreadable    the server is away, refuses, or hides a session's state
"""

from importlib.metadata import version
from typing import Final

__version__ = version("pg-reaper")

KERNEL: Final = (
    "policy/time.py",
    "policy/session.py",
    "policy/selector.py",
    "policy/match.py",
    "policy/rules.py",
    "policy/protections.py",
    "policy/plan.py",
    "policy/memory.py",
    "policy/refill_guard.py",
    "policy/limits.py",
    "policy/decide.py",
    "postgres/observer.py",
    "postgres/terminator.py",
    "postgres/sql/guard.sql",
    "audit/ledger.py",
    "audit/file.py",
    "service/cycle.py",
)
"""The files that can end a session, held to 3,000 lines by a test."""
