"""A dry run among clients of every kind, compared session by session with the accounts of the clients.

One thing cannot be observed from outside: whether a session that was closed had been used just before. The
number of such uses must be within what the reaper reports as unobservable.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.lab.clients.kinds import LabClients
from tests.lab.clients.session import SessionAccount, Use, wall
from tests.lab.judge.audit_log import FATE, OUTCOME
from tests.lab.report import Report, table
from tests.lab.world.log import running, wait_until
from tests.lab.world.reaper import NO_LIMITS, ReaperProcess, policy, rules
from tests.lab.world.server import REAPER, LabServer
from tests.postgres.waiting import PATIENCE

_LIMIT: Final = 0.5
_CLOCKS: Final = 0.1
"""The seconds by which two readings of one clock may differ on a busy machine."""
_KINDS: Final = ("pool", "leak", "returning", "passing", "closing", "pooler")
_RESULTS: Final = ("unused", "left", "revived")


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
        return _CHECKS[self.result](self) if self.result in _CHECKS else f"its result is {self.result}"


def dry_run(*, minutes: float, several: int, seed: int, major: int) -> Report:
    """Run for this long among this many clients of each kind."""
    with ExitStack() as stack:
        server = stack.enter_context(LabServer(major, max_connections="200"))
        server.database("shop")
        folder = Path(stack.enter_context(TemporaryDirectory())) / "reaper"
        idle = policy("idle", _LIMIT, role=["app"], keys=NO_LIMITS)
        text = rules(server.dsn_of(REAPER), idle, interval=1, min_interval=0.05, name="shop")
        reaper = ReaperProcess(folder, text, "--dry-run", "--listen", "off", log_level="warning")
        stack.enter_context(reaper)
        clients = LabClients(lambda: server.port, limit=_LIMIT, seed=seed, database="shop")
        asyncio.run(_live(clients, reaper, 60 * minutes, several))
        report = json.loads(reaper.command("assess", reaper.audit.name, "--output", "json").out)
        return _judged(list(_choices(reaper.audit, clients.accounts)), report["policies"][0])


async def _live(clients: LabClients, reaper: ReaperProcess, seconds: float, several: int) -> None:
    async with running(clients.run(dict.fromkeys(_KINDS, several))):
        await asyncio.sleep(seconds)  # the length of the campaign; nothing is waited for
        clients.paused = True
        # Wait until the reaper has observed every idle session for longer than it had been idle before.
        moment = time.time() + 4 * _LIMIT
        await wait_until(lambda: _last_report(reaper.audit) > moment, within=PATIENCE)
        await asyncio.to_thread(reaper.stop)


def _last_report(audit: Path) -> float:
    return max((_time(entry["fate_at"]) for entry in _entries(audit, FATE)), default=0.0)


def _entries(audit: Path, event: str) -> Iterator[dict[str, Any]]:
    for line in audit.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and (entry := json.loads(line))["event"] == event:
            yield entry


def _choices(audit: Path, accounts: Sequence[SessionAccount]) -> Iterator[_WatchedChoice]:
    known = {(account.pid, account.began): account for account in accounts}
    reports = {entry["intent"]: entry for entry in _entries(audit, FATE)}
    for entry in _entries(audit, OUTCOME):
        none = {"fate": "missing", "fate_at": entry["server_time"], "used_at": None, "unseen_s": 0.0}
        report = reports.get(entry["intent"], none)
        yield _WatchedChoice(
            account=known[entry["pid"], round(_time(entry["backend_start"]) * 1e6)],
            at=_time(entry["server_time"]),
            result=report["fate"],
            result_at=_time(report["fate_at"]),
            used_at=_time(report["used_at"]) if report["used_at"] else None,
            unseen=report["unseen_s"],
        )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _was_revived(choice: _WatchedChoice) -> str | None:
    if choice.used is None:
        return "it was never used again"
    at = choice.used_at or 0
    near = any(wall(use.sent) - _CLOCKS <= at <= wall(use.answered) + _CLOCKS for use in choice.account.uses)
    return None if near else "it was used at another time"


def _has_left(choice: _WatchedChoice) -> str | None:
    if choice.account.closed_at is None:
        return "it is still there"
    if choice.used and wall(choice.used.sent) < choice.result_at - choice.unseen - _CLOCKS:
        return "it was used before, when that could be seen"
    return None


def _was_unused(choice: _WatchedChoice) -> str | None:
    if choice.account.closed_at is not None:
        return "it was closed"
    used = choice.used and wall(choice.used.answered) < choice.result_at - _CLOCKS
    return "it was used again" if used else None


_CHECKS: Final = {"revived": _was_revived, "left": _has_left, "unused": _was_unused}


def _judged(choices: Sequence[_WatchedChoice], report: Mapping[str, Any]) -> Report:
    broken = [
        f"{each.account.kind} {each.account.pid} is reported as {each.result}, and {each.disagreement}"
        for each in choices
        if each.disagreement
    ]
    used = sum(each.used is not None for each in choices)
    unseen = sum(each.used is not None for each in choices if each.result == "left")
    results = Counter(each.result for each in choices)
    counted = {
        "would-be terminations": len(choices),
        "used again, by the clients' accounts": used,
        "of them seen by the reaper": results["revived"],
        "used unseen, just before they were closed": unseen,
    }
    counts = {"revived": results["revived"], "left": results["left"], "acts": len(choices)}
    broken += [
        f"reaper assess counts {report[name]} {name}, not {n}"
        for name, n in counts.items()
        if report[name] != n
    ]
    if used != results["revived"] + unseen:
        broken.append(
            f"{used} were used again, {results['revived']} were seen and {unseen} could not be seen"
        )
    if not report["regret"] <= used / report["judged"] <= report["regret_if_all_who_left_were_used"]:
        broken.append("the clients' rate is outside of what reaper assess allows for")
    rates = {
        "by the clients' accounts": used / report["judged"],
        "by reaper assess": report["regret"],
        "by reaper assess, if all that left were used": report["regret_if_all_who_left_were_used"],
    }
    rows = [(name, f"{count:,}") for name, count in counted.items()]
    rows += [(f"regret, {name}", f"{share:.1%}") for name, share in rates.items()]
    tables = [table("Dry run among clients of every kind", ("", ""), rows), _by_kind(choices)]
    return Report(tables=tables, counted=counted, broken=broken)


def _by_kind(choices: Sequence[_WatchedChoice]) -> str:
    counts = Counter((each.account.kind, each.result) for each in choices)
    used = Counter(each.account.kind for each in choices if each.used)
    rows = [(kind, *(str(counts[kind, result]) for result in _RESULTS), str(used[kind])) for kind in _KINDS]
    return table("By kind of client", ("", *_RESULTS, "used, by its own account"), rows)
