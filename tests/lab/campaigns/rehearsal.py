"""A rehearsal among clients of every kind, compared session by session with what the clients know.

The one thing that no look from outside can tell is whether who has closed its session had used it just
before; so many as did must lie inside what the reaper says that it could not see.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.lab.benchmarks.ground import Daemon, Ground
from tests.lab.benchmarks.table import table
from tests.postgres.waiting import until
from tests.system.policies import policy_file

from .report import Report
from .visitors import Session, Visitors

_LIMIT: Final = 0.5
_RECORD: Final = "audit.jsonl"
_CLOCKS: Final = 0.1
"""Between two readings of one clock, with a busy machine in between."""

_KINDS: Final = ("pool", "leak", "visitor", "passer", "closer", "pgbouncer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act of the rehearsal, with the last word about it and what its client knows."""

    session: Session
    at: float
    fate: str
    fate_at: float
    used_at: float | None
    unseen: float

    @property
    def used(self) -> tuple[float, float] | None:
        """Its first use after it would have been terminated, by its client's own account."""
        return self.session.used_after(self.at)

    @property
    def disagreement(self) -> str | None:
        """Where the client knows better; nothing when both say the same."""
        return _CHECKS[self.fate](self) if self.fate in _CHECKS else f"its fate is {self.fate}"


def rehearsal(*, seconds: float, several: int, seed: int, major: int) -> Report:
    """Rehearse for so long, among so many of each kind."""
    with ExitStack() as stack:
        ground = stack.enter_context(Ground(major, max_connections="200"))
        folder = Path(stack.enter_context(TemporaryDirectory())) / "reaper"
        daemon = Daemon(folder, _policies(ground), "--dry-run", "--listen", "off", level="warning")
        stack.push(daemon)
        way_in = ground.database("shop", user=ground.role("app"))
        visitors = stack.enter_context(Visitors(way_in, limit=_LIMIT, several=several, seed=seed))
        daemon.start()
        time.sleep(seconds)  # how long it is to last, not a wait for anything
        visitors.stand_still()
        _see_the_end(folder / _RECORD)
        daemon.stop()
        visitors.check()
        told = json.loads(daemon.ask("rehearsal", _RECORD, "--output", "json").out)
        return _judged(list(_acts(folder / _RECORD, visitors.sessions)), told["policies"][0])


def _policies(ground: Ground) -> str:
    match = {"state": ["idle"], "idle_for": f"{_LIMIT * 1_000:.0f}ms", "role": ["app"]}
    policy = {"name": "idle", "mode": "enforce", "match": match, "pace": {"per_cycle": 1_000}, "brake": "off"}
    server = {"name": "shop", "dsn": f"{ground.server.dsn} user=reaper"}
    return policy_file(policy, interval="1s", precision="50ms", servers=[server])


def _see_the_end(record: Path) -> None:
    """Wait until the reaper has looked at those that stand still, each for longer than it had been idle."""
    moment = time.time()
    told = partial(_told_since, record, moment + 4 * _LIMIT)
    until(told)


def _told_since(record: Path, moment: float) -> bool:
    return any(_time(line["fate_at"]) > moment for line in _lines(record) if line["event"] == "session.fate")


def _lines(record: Path) -> Iterator[dict[str, Any]]:
    for line in record.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _acts(record: Path, sessions: Sequence[Session]) -> Iterator[Act]:
    """Read without the product's own reader: each intent that was rehearsed, with its last fate."""
    known = {(session.pid, session.began): session for session in sessions}
    fates = {line["intent"]: line for line in _lines(record) if line["event"] == "session.fate"}
    for line in _lines(record):
        if line["event"] == "session.outcome" and line["outcome"] == "rehearsed":
            who = line["pid"], round(_time(line["backend_start"]) * 1e6)
            fate = fates.get(
                line["intent"], {"fate": "untold", "fate_at": line["server_time"], "used_at": None}
            )
            yield Act(
                session=known[who],
                at=_time(line["server_time"]),
                fate=fate["fate"],
                fate_at=_time(fate["fate_at"]),
                used_at=_time(fate["used_at"]) if fate["used_at"] else None,
                unseen=fate.get("unseen_s", 0.0),
            )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _was_revived(act: Act) -> str | None:
    if act.used is None:
        return "it was never used again"
    near = any(sent - _CLOCKS <= (act.used_at or 0) <= came + _CLOCKS for sent, came in act.session.uses)
    return None if near else "it was used at another time"


def _has_left(act: Act) -> str | None:
    if act.session.closed is None:
        return "it is still there"
    if act.used and act.used[0] < act.fate_at - act.unseen - _CLOCKS:
        return "it was used before, and that could have been seen"
    return None


def _was_unused(act: Act) -> str | None:
    if act.session.closed is not None:
        return "it was closed"
    return "it was used again" if act.used and act.used[1] < act.fate_at - _CLOCKS else None


_CHECKS: Final = {"revived": _was_revived, "left": _has_left, "unused": _was_unused}


def _judged(acts: Sequence[Act], told: Mapping[str, Any]) -> Report:
    broken = [
        f"{act.session.kind} {act.session.pid} was told as {act.fate}, and {act.disagreement}"
        for act in acts
        if act.disagreement
    ]
    used = sum(act.used is not None for act in acts)
    unseen = sum(act.used is not None for act in acts if act.fate == "left")
    fates = Counter(act.fate for act in acts)
    counted = {
        "acts": len(acts),
        "used again, by the clients' own account": used,
        "of them seen by the reaper": fates["revived"],
        "used unseen, just before they were closed": unseen,
    }
    if told["revived"] != fates["revived"] or told["left"] != fates["left"] or told["acts"] != len(acts):
        broken.append(
            f"reaper rehearsal counts {told['revived']} revived and {told['left']} left of {told['acts']}"
        )
    if used != fates["revived"] + unseen:
        broken.append(f"{used} were used again, {fates['revived']} were seen and {unseen} could not be")
    if not told["regret"] <= used / told["judged"] <= told["regret_if_all_who_left_were_used"]:
        broken.append("the clients' rate lies outside of what reaper rehearsal allows for")
    rows = [(name, f"{count:,}") for name, count in counted.items()]
    rows += [(f"regret, by {who}", f"{share:.1%}") for who, share in _rates(used, told)]
    return Report(
        tables=[table("Rehearsal among clients of every kind", ("", ""), rows), _by_kind(acts)],
        counted=counted,
        broken=broken,
    )


def _rates(used: int, told: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [
        ("the clients' own account", used / told["judged"]),
        ("reaper rehearsal", told["regret"]),
        ("reaper rehearsal, if all who left were used", told["regret_if_all_who_left_were_used"]),
    ]


def _by_kind(acts: Sequence[Act]) -> str:
    counts = Counter((act.session.kind, act.fate) for act in acts)
    used = Counter(act.session.kind for act in acts if act.used)
    fates = ("unused", "left", "revived")
    rows = [(kind, *(str(counts[kind, fate]) for fate in fates), str(used[kind])) for kind in _KINDS]
    return table("By kind of client", ("", *fates, "used, by its own account"), rows)
