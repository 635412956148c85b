"""A live dry run among clients of every kind: compared with their accounts, and with a backtest.

One thing cannot be observed from outside: whether a session that was closed had been used just before. The
number of such uses must be within what the reaper reports as unobservable.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from reaper.history.read import HistoryReader
from reaper.history.write import history_files
from tests.lab.clients.kinds import LabClients
from tests.lab.clients.session import SessionAccount, Use, wall
from tests.lab.judge.logs import INTENT, OUTCOME
from tests.lab.report import Report, figures, milliseconds, quantile, table
from tests.lab.world.observe import LineCounter, running, wait_until
from tests.lab.world.reaper import CYCLES, NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer, lab_server
from tests.postgres.waiting import PATIENCE
from tests.system.policies import Keys

_LAST_REPORT: Final = "session.dry_run_outcome"
_LIMIT: Final = 0.5
_CLOCKS: Final = 0.1
"""The seconds by which two readings of one clock may differ on a busy machine."""
_KINDS: Final = ("pool", "leak", "returning", "passing", "closing", "pooler")


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedChoice:
    """One would-be termination, the last report about it, and the account of its client."""

    account: SessionAccount
    at: float
    result: str
    result_at: float
    used_at: float | None
    unseen: float

    @property
    def used(self) -> Use | None:
        """Its first use after the would-be termination, by its client's account."""
        return next((use for use in self.account.uses if wall(use.answered) > self.at), None)

    @property
    def disagreement(self) -> str | None:
        """Where the client's account differs; None if it agrees."""
        closed, used = self.account.closed_at is not None, self.used
        match self.result:
            case "used-again":
                at = self.used_at or 0
                sent = ((wall(use.sent), wall(use.answered)) for use in self.account.uses)
                near = any(first - _CLOCKS <= at <= last + _CLOCKS for first, last in sent)
                return None if used and near else "it was not used then"
            case "left" if not closed:
                return "it is still there"
            case "left":
                seen = used and wall(used.sent) < self.result_at - self.unseen - _CLOCKS
                return "it was used before, when that could be seen" if seen else None
            case "unused":
                seen = used and wall(used.answered) < self.result_at - _CLOCKS
                return "it was closed" if closed else "it was used again" if seen else None
        return f"its result is {self.result}"


def dry_run(*, major: int, minutes: float = 5.0, several: int = 20, seed: int = 20261120) -> Report:
    """Compare a dry run with the accounts of its clients, several of each kind."""
    with lab_server(major, max_connections="200") as (server, folder):
        server.database("shop")
        idle = policy("idle", _LIMIT, role=["app"], keys=NO_LIMITS)
        text = rules(server.dsn_of(REAPER), idle, interval=1, min_interval=0.05, name="shop")
        with ReaperProcess(folder / "reaper", text, "--dry-run", log_level="warning") as reaper:
            clients = LabClients(lambda: server.port, limit=_LIMIT, seed=seed, database="shop")
            asyncio.run(_watched(clients, reaper, 60 * minutes, several))
            report = json.loads(reaper.command("assess", reaper.audit.name, "--output", "json").out)
            return _judged(list(_choices(reaper.audit, clients.accounts)), report["policies"][0])


async def _watched(clients: LabClients, reaper: ReaperProcess, seconds: float, several: int) -> None:
    async with running(clients.run(dict.fromkeys(_KINDS, several))):
        await asyncio.sleep(seconds)  # the length of the campaign; nothing is waited for
        # On a busy machine the first cycles may take longer than that.
        used_again = LineCounter(reaper.audit, b'"dry_run_outcome": "used-again"')
        await wait_until(lambda: used_again.count() >= 2 * several, within=PATIENCE)
        clients.paused = True
        # Wait until the reaper has observed every idle session for longer than it had been idle before.
        moment = time.time() + 4 * _LIMIT
        await wait_until(lambda: _last_report(reaper.audit) > moment, within=PATIENCE)
        await asyncio.to_thread(reaper.stop)


def _last_report(audit: Path) -> float:
    return max((_time(entry["dry_run_outcome_at"]) for entry in _entries(audit, _LAST_REPORT)), default=0.0)


def _entries(file: Path, event: str | None = None) -> Iterator[dict[str, Any]]:
    """The complete lines of a file with this event."""
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and (entry := json.loads(line)).get("event") == event:
            yield entry


def _choices(audit: Path, accounts: Sequence[SessionAccount]) -> Iterator[_WatchedChoice]:
    known = {(account.pid, account.began): account for account in accounts}
    reports = {entry["intent"]: entry for entry in _entries(audit, _LAST_REPORT)}
    for entry in _entries(audit, OUTCOME):
        none = {
            "dry_run_outcome": "missing",
            "dry_run_outcome_at": entry["server_time"],
            "used_at": None,
            "unseen_s": 0.0,
        }
        report = reports.get(entry["intent"], none)
        yield _WatchedChoice(
            account=known[entry["pid"], round(_time(entry["backend_start"]) * 1e6)],
            at=_time(entry["server_time"]),
            result=report["dry_run_outcome"],
            result_at=_time(report["dry_run_outcome_at"]),
            used_at=_time(report["used_at"]) if report["used_at"] else None,
            unseen=report["unseen_s"],
        )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _judged(choices: Sequence[_WatchedChoice], report: Mapping[str, Any]) -> Report:
    used = sum(each.used is not None for each in choices)
    unseen = sum(each.used is not None for each in choices if each.result == "left")
    results = Counter(each.result for each in choices)
    counted = {
        "would-be terminations": len(choices),
        "used again, by the clients' accounts": used,
        "of them seen by the reaper": results["used-again"],
        "used unseen, just before they were closed": unseen,
    }
    rates = {
        "by the clients' accounts": used / report["decided"],
        "by reaper assess": report["regret"],
        "by reaper assess, if all that left were used": report["regret_if_all_left_were_used"],
    }
    counts = {"used_again": results["used-again"], "left": results["left"], "dry_runs": len(choices)}
    broken = [
        f"{each.account.kind} {each.account.pid} is reported as {each.result}, and {each.disagreement}"
        for each in choices
        if each.disagreement
    ]
    broken += [
        f"reaper assess counts {report[name]} {name}, not {n}"
        for name, n in counts.items()
        if report[name] != n
    ]
    if used != results["used-again"] + unseen:
        broken.append(
            f"{used} used again, {results['used-again']} of them seen, {unseen} of them not observable"
        )
    low, high = report["regret"], report["regret_if_all_left_were_used"]
    if not low <= used / report["decided"] <= high:
        broken.append("the clients' rate is outside of the range of reaper assess")
    rows = [(name, f"{count:,}") for name, count in counted.items()]
    rows += [(f"regret, {name}", f"{share:.1%}") for name, share in rates.items()]
    tables = [table("Dry run among clients of every kind", ("", ""), rows)]
    return Report(tables=tables, counted=counted, broken=broken)


_NAME: Final = "mixed"
_REPLAY_LIMIT: Final = 3.0
_CLIENTS: Final = {
    "pool": 12,
    "sleepy pool": 6,
    "leak": 6,
    "returning": 6,
    "passing": 6,
    "closing": 6,
    "visiting": 9,
    "thinking": 3,
}
_PATIENCE: Final = 3_600.0


class _ReplayedChoice(NamedTuple):
    """One would-be termination."""

    pid: int
    backend_start: str
    state_change: str | None
    policy: str


def replay(*, major: int, acts: int = 2_000, every: str = "5s", seed: int = 20261120) -> Report:
    """Compare a live dry run that keeps a history with the backtest of it: session, state and policy.

    The audit log has the choices of the live run; the backtest has nothing but the history.
    """
    with lab_server(major, max_connections="120") as (server, scratch):
        folder = scratch / _NAME
        text = rules(server.database(_NAME), *_policies(), interval=2, min_interval=0.5, name=_NAME)
        history = ("--history", "history", "--history-every", every)
        with ReaperProcess(folder, text, "--dry-run", *history, log_level="debug") as reaper:
            # The backtest takes the snapshot before the first cycle for a cycle: no session is there yet.
            reaper.wait(*CYCLES)
            asyncio.run(_recorded(server, reaper, acts, seed))
        done = reaper.command("backtest", "--history", "history", "--acts", "acts.jsonl", "-o", "json")
        assert done.code == 0, done.err
        return _compared(folder, done.document["servers"][0], done.err)


async def _recorded(server: LabServer, reaper: ReaperProcess, acts: int, seed: int) -> None:
    counter = LineCounter(reaper.audit, b'"outcome": "dry-run"')
    clients = LabClients(lambda: server.port, limit=_REPLAY_LIMIT, seed=seed, database=_NAME)
    async with running(clients.run(_CLIENTS)):
        await wait_until(lambda: counter.count() >= acts or not reaper.running, within=_PATIENCE)
        # Before the clients end: the history would show an end that no cycle has seen.
        assert await asyncio.to_thread(reaper.end) == 0


def _compared(folder: Path, found: Mapping[str, Any], complaints: str) -> Report:
    # Intents and not outcomes: the stop of the reaper withdraws the rest of the plan of its last cycle.
    live = _chosen(_entries(folder / "audit.jsonl", INTENT), "server_time")
    replayed = _chosen(_entries(folder / "acts.jsonl"), "time")
    shared = live.keys() & replayed.keys()
    apart = sorted(abs((live[each] - replayed[each]).total_seconds()) for each in shared)
    # Where the live run was late, beside other work, the backtest has a cycle more. It may choose more there,
    # and later in place of what it has chosen already.
    alone, cycles = replayed.keys() - live.keys(), _live_cycles(folder / "history")
    first = min((at for at in replayed.values() if round(at.timestamp() * 1e6) not in cycles), default=None)
    late = {each for each in alone if first and replayed[each] >= first}
    broken = [f"only the live run chose {each}" for each in sorted(live.keys() - replayed.keys())]
    broken += [f"only the backtest chose {each}" for each in sorted(alone - late)]
    broken += [complaints] if complaints else []
    (side,) = found["sides"]
    counted = {
        "choices of the live dry run": len(live),
        "choices of the backtest": len(replayed),
        "the same session, state and policy": len(apart),
        "by the backtest alone, after a late cycle of the live run": len(late),
        "sessions": len({each[:2] for each in live}),
        "snapshots": found["readings"],
        "uncertain, by the backtest": side["uncertain"],
    }
    by_policy = Counter(each.policy for each in sorted(live))
    moments = f"between the two moments of a choice: median {milliseconds(quantile(apart, 0.5))}, "
    title = f"Replay: a live dry run, and the backtest of its history of {found['seconds']:.0f} s;\n{moments}"
    tables = [
        figures(f"{title}p95 {milliseconds(quantile(apart, 0.95))}", counted),
        figures("Choices by policy", by_policy),
    ]
    return Report(tables=tables, counted=counted, broken=broken)


def _live_cycles(history: Path) -> set[int]:
    """The moments of the cycles of the live run, in microseconds."""
    reader = HistoryReader(history_files(history), print)
    return {mark.at for recorded in reader.snapshots() for mark in recorded.cycles}


def _chosen(entries: Iterable[Mapping[str, Any]], time: str) -> Mapping[_ReplayedChoice, datetime]:
    """The moment of each choice."""
    names = _ReplayedChoice._fields
    return {
        _ReplayedChoice(*(each[name] for name in names)): datetime.fromisoformat(each[time])
        for each in entries
    }


def _policies() -> list[Keys]:
    """Policies with every limit, each of which has something to hold back here."""
    leaks = {
        "allowlist": {"application": ["leak-2"]},
        "max_per_cycle": 3,
        "safety_limit": {"share": "60%"},
    }
    visitors = {"keep": {"newest": 1, "per": ["role"]}, "when": {"slots_used": "30%"}}
    consoles = {"state": ["idle in transaction"], "transaction_for": "2s", "application": ["console"]}
    return [
        policy("leaks", _REPLAY_LIMIT, mode="dry-run", application=["leak-*"], keys=leaks),
        policy("pools", _REPLAY_LIMIT, application=["pool-*"]),
        policy("visitors", _REPLAY_LIMIT, mode="dry-run", application=["cron-*"], keys=visitors),
        {"name": "consoles", "match": consoles},
    ]
