"""A live dry run that keeps a history, and a backtest of it: they must have taken the same sessions.

The record is the live run's, written as it decided; the backtest has nothing but the history. Compared is
each act: session, the state it was in, and the policy.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from tests.lab.benchmarks.ground import Daemon, Ground
from tests.lab.benchmarks.table import figure, quantile, table
from tests.postgres.waiting import until
from tests.system.policies import policy_file

from .mixed import Mixed
from .report import Report, figures
from .tail import Tail

_NAME: Final = "mixed"
_LIMIT: Final = 3.0
_REHEARSED: Final = b'"outcome": "rehearsed"'
_PATIENCE: Final = 3_600.0


class _Act(NamedTuple):
    """One would-be termination."""

    pid: int
    backend_start: str
    state_change: str | None
    policy: str

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "_Act":
        return cls(told["pid"], told["backend_start"], told["state_change"], told["policy"])


def backtest(*, acts: int, seed: int, major: int, every: str = "5s") -> Report:
    """Rehearse so many terminations, then replay."""
    with TemporaryDirectory() as scratch, Ground(major, max_connections="120") as ground:
        ground.role("app")
        folder = Path(scratch) / _NAME
        server = {"name": _NAME, "dsn": ground.database(_NAME)}
        text = policy_file(*_policies(), interval="2s", precision="100ms", servers=[server])
        keeping = ("--history", "history", "--history-every", every)
        daemon = Daemon(folder, text, "--dry-run", "--listen", "off", *keeping)
        with Mixed(ground.database_of(_NAME, user="app"), limit=_LIMIT, seed=seed) as clients, daemon:
            tail = Tail(folder / "audit.jsonl", _REHEARSED)

            def enough() -> bool:
                clients.check()
                assert daemon.running, "the reaper has ended by itself"
                return tail.count() >= acts

            until(enough, within=_PATIENCE, every=0.05)
            assert daemon.life
            assert daemon.life.end().code == 0
        done = daemon.ask("backtest", "--history", "history", "--acts", "acts.jsonl", "-o", "json")
        assert done.code == 0, done.err
        return _judged(folder, done.document["servers"][0], done.err)


def _judged(folder: Path, found: Mapping[str, Any], told: str) -> Report:
    live = _acts(folder / "audit.jsonl", "server_time", outcome="rehearsed")
    replayed = _acts(folder / "acts.jsonl", "time")
    only_live, only_replayed = live.keys() - replayed.keys(), replayed.keys() - live.keys()
    apart = sorted(abs((live[act] - replayed[act]).total_seconds()) for act in live.keys() & replayed.keys())
    broken = [f"only the live run took {act}" for act in sorted(only_live)]
    broken += [f"only the backtest took {act}" for act in sorted(only_replayed)]
    broken += [told] if told else []
    (side,) = found["sides"]
    counted = {
        "acts of the live dry run": len(live),
        "acts of the backtest": len(replayed),
        "the same session, state and policy": len(apart),
        "sessions": len({act[:2] for act in live}),
        "readings": found["readings"],
        "uncertain, by the backtest": side["uncertain"],
    }
    policies = {
        name: sum(act.policy == name for act in live) for name in sorted({act.policy for act in live})
    }
    times = [
        ("between the two moments of an act, median", figure(quantile(apart, 0.5), "s", 3)),
        ("p95", figure(quantile(apart, 0.95), "s", 3)),
    ]
    title = f"Backtest: the acts of a live dry run, and those of its history, {found['seconds']:.0f} s long"
    tables = [figures(title, counted), figures("Acts by policy", policies), table("Apart", ("", ""), times)]
    return Report(tables=tables, counted=counted, broken=broken)


def _acts(path: Path, time: str, **wanted: str) -> Mapping[_Act, datetime]:
    lines = (json.loads(line) for line in path.read_text(encoding="ascii").splitlines())
    return {
        _Act.of(told): datetime.fromisoformat(told[time])
        for told in lines
        if all(told.get(key) == value for key, value in wanted.items())
    }


def _policies() -> list[dict[str, object]]:
    """Every restraint that there is has something to hold back here."""
    idle = {"state": ["idle"], "idle_for": f"{_LIMIT:g}s"}
    return [
        {
            "name": "leaks",
            "match": {**idle, "application": ["leak-*"]},
            "allowlist": {"application": ["leak-2"]},
            "pace": {"per_cycle": 3},
            "brake": {"share": "60%"},
        },
        {"name": "pools", "mode": "enforce", "match": {**idle, "application": ["pool-*"]}},
        {
            "name": "visitors",
            "match": {**idle, "application": ["cron-*"]},
            "keep": {"newest": 1, "per": ["role"]},
            "when": {"connections_used": "30%"},
        },
        {
            "name": "consoles",
            "match": {"state": ["idle in transaction"], "transaction_for": "2s", "application": ["console"]},
        },
    ]
