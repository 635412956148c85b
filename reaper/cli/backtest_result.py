"""What a backtest has found, for a terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import click

from reaper.cli.output import Row, print_table
from reaper.config import Settings
from reaper.insight.backtest.compare import BOTH, NEW, OLD, Versus
from reaper.insight.backtest.replay import Level, Stretch
from reaper.insight.backtest.result import Backtest
from reaper.insight.dryrun.regret import Regret
from reaper.policy.rules import Policy
from reaper.policy.text import plain
from reaper.policy.time import SECOND, Span, exact_words, isoformat, words

Found = Mapping[str, Any]


def headline(side: Found) -> str:
    """How many of how many applications, and how many of them in vain."""
    taken = side["taken"]
    if not taken:
        return "These policies would have ended nobody."
    of = counted(side["applications_taken"], "application")
    return f"These policies would have ended {counted(taken, 'session')} of {of}; {regret(side)}."


def regret(side: Found) -> str:
    """`0.2 % of them were used again (3 of 1,190 that can be judged; ...)`."""
    judged, again = side["judged"], side["used_again"]
    if not judged:
        return "what became of them cannot be judged yet"
    bound = f"at most {percent(side['regret_at_most'])} with 95 % confidence"
    of = f"{again:,} of {judged:,} that can be judged; {bound}"
    return f"{percent(again / judged)} of them were used again ({of})"


def peaks(found: Found, side: Found) -> str:
    """`The peak of Tue 2025-06-17 14:03 would have been 61 instead of 100 slots, of 97 that ...`."""
    peak, would = side["peak"], side["peak_would"]
    if not peak or not would:
        return "Nothing is known of the slots."
    usable = f"{found['slots']['usable']:,} can be used by ordinary roles"
    was = f"The peak of {moment(peak['at'])} was {peak['used']:,} slots ({usable})"
    told = f"{was}; it would have been {peak['would']:,}."
    if would["at"] == peak["at"]:
        return told
    return f"{told} The highest would have been {would['would']:,}, on {moment(would['at'])}."


def doubts(found: Found, side: Found) -> Iterator[str]:
    """What cannot be known from this history."""
    if side["uncertain"]:
        many = counted(side["uncertain"], "more session")
        yield f"{many} may have been ended: they changed or left between two readings, when they fell due."
    if found["gaps"]:
        unknown = words(Span(round(found["unknown_seconds"] * SECOND)))
        gaps = counted(found["gaps"], "gap")
        yield f"{gaps} of {unknown} in all: nothing is known of that time, and afterwards everybody is new."
    if side["too_soon"]:
        many = counted(side["too_soon"], "session")
        yield f"{many} cannot be judged yet: not watched for as long as they had been idle."
    braked = [f"{row['policy']} ({row['brakes']:,} times)" for row in side["policies"] if row["brakes"]]
    if braked:
        yield f"The brake held: {', '.join(braked)}."


def span_of(found: Found) -> str:
    """`2025-06-11 00:00 to 2025-06-18 00:00 UTC (7d), 60,480 readings, 412 sessions on average`."""
    readings = found["readings"]
    average = found["observations"] / max(readings, 1)
    lasted = words(Span(round(found["seconds"] * SECOND)))
    between = f"{moment(found['began'], day=False)} to {moment(found['ended'], day=False)} UTC ({lasted})"
    return f"{between}, {counted(readings, 'reading')}, {average:,.0f} sessions on average"


MODEL = (
    "As under --dry-run, every session stays in the history, and counts as gone from the moment at which a "
    "policy takes it until its client uses it again: then the client would have had to connect anew."
)


def moment(text: str | None, *, day: bool = True) -> str:
    """`Tue 2025-06-17 14:03`; one outside the calendar as it stands."""
    try:
        return f"{datetime.fromisoformat(text or ''):{'%a ' if day else ''}%Y-%m-%d %H:%M}"
    except ValueError:
        return str(text)


def percent(share: float | None) -> str:
    """`0.2 %`; nothing when it is not known."""
    if share is None:
        return ""
    return f"{100 * share:.1f} %" if share < 1 else "100 %"


def counted(number: int, what: str) -> str:
    """`1 session`, `1,204 sessions`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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


class Acts:
    """Writes them as they come."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    def write(self, server: str, policies: str, stretch: Stretch) -> None:
        """Those on the way from one reading to the next."""
        if self._file is None:
            return
        for at, reap, again in stretch.taken:
            if again:
                continue
            session = reap.session
            line = {
                "time": isoformat(at),
                "server": server,
                "policies": policies,
                "policy": reap.policy.name,
                "mode": reap.mode.value,
                "action": reap.action.value,
                "pid": session.id.pid,
                "backend_start": isoformat(session.id.backend_start),
                **session.identity._asdict(),
                "state": session.state,
                "state_change": isoformat(session.state_change),
                "reason": reap.reason,
            }
            self._file.write(json.dumps(line) + "\n")


@contextmanager
def written_to(path: Path | None) -> Iterator[Acts]:
    """A file for them, or none; raises OSError."""
    if path is None:
        yield Acts(None)
        return
    with path.open("w", encoding="ascii") as file:
        yield Acts(file)


_MOST_ROWS: Final = 12


def print_account(found: Found) -> None:
    """One server, one or two policy files."""
    click.echo(plain(f"{found['server']}: {span_of(found)}"))
    for side in found["sides"]:
        click.echo()
        click.echo(plain(f"{side['file']}: {headline(side)}"))
        click.echo(plain(peaks(found, side)))
        click.echo()
        print_table([_backtest_table_policy(row) for row in side["policies"]], empty="No policy is awake.")
    if found["comparison"]:
        _print_comparison(found["comparison"])
    last = found["sides"][-1]
    rows = [_application(row) for row in last["applications"] if row["taken"]]
    if rows:
        click.echo()
        print_table(rows[:_MOST_ROWS])
    told = list(_last_words(found))
    if told:
        click.echo()
    for sentence in told:
        click.echo(plain(sentence))


def _last_words(found: Found) -> Iterator[str]:
    for side in found["sides"]:
        name = f"{side['file']}: " if len(found["sides"]) > 1 else ""
        yield from (f"{name}{sentence}" for sentence in doubts(found, side))
    if any(side["taken"] for side in found["sides"]):
        yield MODEL


def _print_comparison(comparison: Mapping[str, Any]) -> None:
    click.echo()
    new, old, both = (f"{comparison[key]:,}" for key in ("only_new", "only_old", "both"))
    click.echo(f"Only the new ones would have ended {new}, only the old ones {old}, both {both}.")
    rows: list[Row] = [dict(row) for row in comparison["applications"][:_MOST_ROWS]]
    if rows:
        click.echo()
        print_table(rows)


def _backtest_table_policy(row: Found) -> Row:
    return {
        "policy": row["policy"],
        "mode": row["mode"],
        "ended": f"{row['taken']:,}",
        "used again": f"{row['used_again']:,}",
        "regret": percent(row["regret"]),
        "at most": percent(row["regret_at_most"]),
        "under 1 % at": row["limit_under_1_percent"] or "",
    }


def _application(row: Found) -> Row:
    return {
        "application": row["application"],
        "ended": f"{row['taken']:,}",
        "regret": percent(row["regret"]),
        "peak": "" if row["peak"] is None else row["peak"],
        "would be": "" if row["peak_would"] is None else row["peak_would"],
    }
