"""What a backtest has found, as a document: the same for the table, for JSON and for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reaper.config import Settings
from reaper.policy.backtest import Backtest
from reaper.policy.regret import Regret
from reaper.policy.rules import Policy
from reaper.policy.spans import SECOND, exact_words, isoformat
from reaper.policy.stretch import Level
from reaper.policy.versus import BOTH, NEW, OLD, Versus

MOST_APPLICATIONS: Final = 50
"""In a document; the others are one row."""

Document = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One policy file."""

    name: str
    settings: Settings


@dataclass(slots=True, kw_only=True)
class Replayed:
    """One server's history under one or two policy files."""

    server: str
    anonymous: bool
    sides: Sequence[Side]
    backtests: Sequence[Backtest]
    versus: Versus | None


def account(replayed: Replayed) -> Document:
    """All that is to be told of one server."""
    found = replayed.backtests[0].findings
    slots = found.slots
    return {
        "server": replayed.server,
        "anonymous": replayed.anonymous,
        "began": isoformat(found.began),
        "ended": isoformat(found.ended),
        "seconds": ((found.ended or 0) - (found.began or 0)) / SECOND,
        "readings": found.readings,
        "observations": found.observations,
        "gaps": found.gaps,
        "unknown_seconds": found.unknown / SECOND,
        "slots": slots and {"total": slots.total, "reserved": slots.reserved, "usable": slots.usable},
        "sides": [_side(*each) for each in zip(replayed.sides, replayed.backtests, strict=True)],
        "comparison": replayed.versus and _comparison(replayed.versus),
    }


def _side(side: Side, backtest: Backtest) -> Document:
    found, hindsight = backtest.findings, backtest.hindsight
    names = [policy.name for policy in backtest.rules.awake]
    regret = _total([hindsight.regret(name) for name in names])
    return {
        "file": side.name,
        "digest": backtest.rules.digest,
        "taken": found.taken.total(),
        "applications_taken": sum(bool(each.taken) for each in found.applications.values()),
        "uncertain": found.uncertain,
        **_regret(regret),
        "peak": _level(found.peak),
        "peak_would": _level(found.peak_would),
        "policies": [_policy(policy, backtest) for policy in backtest.rules.awake],
        "applications": _applications(backtest),
        "course": _course(backtest),
    }


def _policy(policy: Policy, backtest: Backtest) -> Document:
    limit = backtest.hindsight.limit(policy.name)
    return {
        "policy": policy.name,
        "mode": policy.mode.value,
        "action": policy.action.value,
        "taken": backtest.findings.taken[policy.name],
        "brakes": backtest.findings.brakes[policy.name],
        **_regret(backtest.hindsight.regret(policy.name)),
        "limit_under_1_percent": limit and exact_words(limit.span),
    }


def _regret(regret: Regret) -> Document:
    return {
        "judged": regret.judged,
        "used_again": regret.revived,
        "left": regret.left,
        "unused": regret.unused,
        "too_soon": regret.too_soon,
        "unknown": regret.unknown,
        "regret": regret.rate,
        "regret_at_most": regret.upper if regret.judged else None,
    }


def _total(parts: Sequence[Regret]) -> Regret:
    return Regret(
        unused=sum(each.unused for each in parts),
        left=sum(each.left for each in parts),
        revived=sum(each.revived for each in parts),
        unknown=sum(each.unknown for each in parts),
        too_soon=sum(each.too_soon for each in parts),
    )


def _level(level: Level | None) -> Document | None:
    return level and {"at": isoformat(level.at), "used": level.used, "would": level.would}


def _applications(backtest: Backtest) -> list[Document]:
    every = backtest.findings.applications
    largest = sorted(every, key=lambda name: (-every[name].taken, -every[name].peak, name))
    rows: list[Document] = []
    for name in largest[:MOST_APPLICATIONS]:
        one = every[name]
        regret = backtest.hindsight.regret_of_application(name)
        row = {"taken": one.taken, "peak": one.peak, "peak_would": one.peak_would}
        rows.append({"application": name, **row, **_regret(regret)})
    rest = [every[name] for name in largest[MOST_APPLICATIONS:]]
    if rest:
        taken = sum(each.taken for each in rest)
        peaks = {"peak": None, "peak_would": None}  # not at one time, and so no sum
        rows.append({"application": f"{len(rest)} more", "taken": taken, **peaks, **_regret(Regret())})
    return rows


def _course(backtest: Backtest) -> Document:
    course = backtest.findings.course
    return {
        "step_seconds": course.width / SECOND,
        "steps": [
            {
                "at": isoformat(course.moment(number)),
                "used": step.used,
                "would": step.would,
                "taken": step.taken,
            }
            for number, step in sorted(course.steps.items())
        ],
    }


def _comparison(versus: Versus) -> Document:
    names = sorted(versus.applications, key=lambda name: (-versus.applications[name].total(), name))
    sides = (("only_old", OLD), ("both", BOTH), ("only_new", NEW))
    return {
        **{key: versus.acts[side] for key, side in sides},
        "applications": [
            {"application": name, **{key: versus.applications[name][side] for key, side in sides}}
            for name in names[:MOST_APPLICATIONS]
        ],
    }
