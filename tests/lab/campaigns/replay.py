"""A live dry run that keeps a history, and a backtest of it: both must have chosen the same sessions.

The audit log has the live run's choices; the backtest has nothing but the history. Compared is each choice:
session, state and policy.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.lab.clients.kinds import LabClients
from tests.lab.report import Report, figure, figures, quantile, table
from tests.lab.world.log import LineCounter, running, wait_until
from tests.lab.world.reaper import ReaperProcess, policy, rules
from tests.lab.world.server import LabServer
from tests.system.policies import Keys

_NAME: Final = "mixed"
_LIMIT: Final = 3.0
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


def replay(*, acts: int, seed: int, major: int, every: str = "5s") -> Report:
    """Choose this many sessions in a dry run, and replay its history."""
    with TemporaryDirectory() as scratch, LabServer(major, max_connections="120") as server:
        folder = Path(scratch) / _NAME
        text = rules(server.database(_NAME), *_policies(), interval=2, min_interval=0.1, name=_NAME)
        history = ("--history", "history", "--history-every", every)
        with ReaperProcess(folder, text, "--dry-run", "--listen", "off", *history) as reaper:
            asyncio.run(_live(server, reaper, acts, seed))
        done = reaper.command("backtest", "--history", "history", "--acts", "acts.jsonl", "-o", "json")
        assert done.code == 0, done.err
        return _judged(folder, done.document["servers"][0], done.err)


async def _live(server: LabServer, reaper: ReaperProcess, acts: int, seed: int) -> None:
    counter = LineCounter(reaper.audit, b'"outcome": "rehearsed"')
    clients = LabClients(lambda: server.port, limit=_LIMIT, seed=seed, database=_NAME)
    async with running(clients.run(_CLIENTS)):
        await wait_until(lambda: counter.count() >= acts or not reaper.running, within=_PATIENCE)
        # Before the clients end: the history would show an end that no cycle has seen.
        assert await asyncio.to_thread(reaper.end) == 0


def _judged(folder: Path, found: Mapping[str, Any], complaints: str) -> Report:
    live = _choices(folder / "audit.jsonl", "server_time", outcome="rehearsed")
    replayed = _choices(folder / "acts.jsonl", "time")
    apart = sorted(
        abs((live[each] - replayed[each]).total_seconds()) for each in live.keys() & replayed.keys()
    )
    broken = [f"only the live run chose {each}" for each in sorted(live.keys() - replayed.keys())]
    broken += [f"only the backtest chose {each}" for each in sorted(replayed.keys() - live.keys())]
    broken += [complaints] if complaints else []
    (side,) = found["sides"]
    counted = {
        "choices of the live dry run": len(live),
        "choices of the backtest": len(replayed),
        "the same session, state and policy": len(apart),
        "sessions": len({each[:2] for each in live}),
        "snapshots": found["readings"],
        "uncertain, by the backtest": side["uncertain"],
    }
    names = sorted({each.policy for each in live})
    by_policy = {name: sum(each.policy == name for each in live) for name in names}
    times = [
        ("between the two moments of a choice, median", figure(quantile(apart, 0.5), "s", 3)),
        ("p95", figure(quantile(apart, 0.95), "s", 3)),
    ]
    title = f"Replay: a live dry run, and the backtest of its history of {found['seconds']:.0f} s"
    tables = [
        figures(title, counted),
        figures("Choices by policy", by_policy),
        table("Apart", ("", ""), times),
    ]
    return Report(tables=tables, counted=counted, broken=broken)


def _choices(path: Path, time: str, **wanted: str) -> Mapping[_ReplayedChoice, datetime]:
    entries = (json.loads(line) for line in path.read_text(encoding="ascii").splitlines())
    return {
        _ReplayedChoice(*(entry[name] for name in _ReplayedChoice._fields)): datetime.fromisoformat(
            entry[time]
        )
        for entry in entries
        if all(entry.get(key) == value for key, value in wanted.items())
    }


def _policies() -> list[Keys]:
    """Policies with every limit that there is, each of which has something to hold back here."""
    return [
        policy(
            "leaks",
            _LIMIT,
            mode="dry-run",
            application=["leak-*"],
            keys={
                "allowlist": {"application": ["leak-2"]},
                "max_per_cycle": 3,
                "safety_limit": {"share": "60%"},
            },
        ),
        policy("pools", _LIMIT, application=["pool-*"]),
        policy(
            "visitors",
            _LIMIT,
            mode="dry-run",
            application=["cron-*"],
            keys={"keep": {"newest": 1, "per": ["role"]}, "when": {"slots_used": "30%"}},
        ),
        {
            "name": "consoles",
            "match": {"state": ["idle in transaction"], "transaction_for": "2s", "application": ["console"]},
        },
    ]
