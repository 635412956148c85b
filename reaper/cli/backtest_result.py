"""The result of a backtest: a document for programs, tables and sentences for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from reaper.cli.output import Row, print_table
from reaper.insight.backtest.compare import BOTH, NEW, OLD, Comparison
from reaper.insight.backtest.replay import SlotUse
from reaper.insight.backtest.result import Backtest
from reaper.insight.dryrun.regret import Regret
from reaper.policy.rules import Policy
from reaper.policy.text import counted, percent, printable
from reaper.policy.time import SECOND, Duration, exact_words, isoformat, words

Document = Mapping[str, Any]

_MAX_APPLICATIONS: Final = 50
"""Applications in a document; the others are one row."""
_MAX_ROWS: Final = 12
"""Rows of a table on a terminal."""
DRY_RUN_MODEL: Final = (
    "As under --dry-run, every session stays in the history, and its slot counts as free from then on "
    "until its client uses it again: then the client would have had to connect anew."
)


def as_document(
    server: str, sides: Sequence[tuple[str, Backtest]], comparison: Comparison | None, *, anonymous: bool
) -> Document:
    """Return the result of one server for programs; a side is a policy file, and what it would have done."""
    first = sides[0][1]
    slots = first.slots
    return {
        "server": server,
        "anonymous": anonymous,
        "began": isoformat(first.began),
        "ended": isoformat(first.ended),
        "seconds": ((first.ended or 0) - (first.began or 0)) / SECOND,
        "readings": first.snapshots,
        "observations": first.observations,
        "gaps": first.gaps,
        "unknown_seconds": first.gap_time / SECOND,
        "slots": slots and {"total": slots.total, "reserved": slots.reserved, "usable": slots.usable},
        "sides": [_side(name, backtest) for name, backtest in sides],
        "comparison": comparison and _comparison(comparison),
    }


def _side(name: str, backtest: Backtest) -> Document:
    return {
        "file": name,
        "digest": backtest.rules.digest,
        "taken": backtest.terminations.total(),
        "applications_taken": sum(bool(each.terminated) for each in backtest.applications.values()),
        "uncertain": backtest.uncertain,
        **_regret(backtest.hindsight.total()),
        "peak": _slot_use(backtest.peak),
        "peak_would": _slot_use(backtest.peak_would),
        "policies": [_policy(policy, backtest) for policy in backtest.rules.enabled],
        "applications": _applications(backtest),
        "course": _timeline(backtest),
    }


def _policy(policy: Policy, backtest: Backtest) -> Document:
    limit = backtest.hindsight.limit(policy.name)
    return {
        "policy": policy.name,
        "mode": policy.mode.value,
        "action": policy.action.value,
        "taken": backtest.terminations[policy.name],
        "brakes": backtest.trips[policy.name],
        **_regret(backtest.hindsight.regret(policy.name)),
        "limit_under_1_percent": limit and exact_words(limit.span),
    }


def _regret(regret: Regret) -> Document:
    return {
        "judged": regret.decided,
        "used_again": regret.used_again,
        "left": regret.left,
        "unused": regret.unused,
        "too_soon": regret.too_soon,
        "unknown": regret.unknown,
        "regret": regret.rate,
        "regret_at_most": regret.upper if regret.decided else None,
    }


def _slot_use(use: SlotUse | None) -> Document | None:
    return use and {"at": isoformat(use.at), "used": use.used, "would": use.would}


def _applications(backtest: Backtest) -> list[Document]:
    known = backtest.applications
    largest = sorted(known, key=lambda name: (-known[name].terminated, -known[name].peak, name))
    rows: list[Document] = [
        {
            "application": name,
            "taken": known[name].terminated,
            "peak": known[name].peak,
            "peak_would": known[name].peak_would,
            **_regret(backtest.hindsight.regret_of_application(name)),
        }
        for name in largest[:_MAX_APPLICATIONS]
    ]
    if rest := largest[_MAX_APPLICATIONS:]:
        taken = sum(known[name].terminated for name in rest)
        # No sum of peaks: they are not of one time.
        others = {"application": f"{len(rest)} more", "taken": taken, "peak": None, "peak_would": None}
        rows.append({**others, **_regret(Regret())})
    return rows


def _timeline(backtest: Backtest) -> Document:
    timeline = backtest.timeline
    steps = [
        {
            "at": isoformat(timeline.moment(number)),
            "used": one.used,
            "would": one.would,
            "taken": one.terminations,
        }
        for number, one in sorted(timeline.buckets.items())
    ]
    return {"step_seconds": timeline.width / SECOND, "steps": steps}


def _comparison(comparison: Comparison) -> Document:
    sides = (("only_old", OLD), ("both", BOTH), ("only_new", NEW))
    known = comparison.applications
    names = sorted(known, key=lambda name: (-known[name].total(), name))[:_MAX_APPLICATIONS]
    rows = [{"application": name, **{key: known[name][side] for key, side in sides}} for name in names]
    return {**{key: comparison.counts[side] for key, side in sides}, "applications": rows}


def print_result(found: Document) -> None:
    """Print the result of one server for people."""
    click.echo(printable(f"{found['server']}: {period(found)}"))
    for side in found["sides"]:
        click.echo()
        click.echo(printable(f"{side['file']}: {headline(side)}"))
        click.echo(printable(peaks(found, side)))
        click.echo()
        print_table([_policy_row(row) for row in side["policies"]], empty="No policy is enabled.")
    if comparison := found["comparison"]:
        new, old, both = (f"{comparison[key]:,}" for key in ("only_new", "only_old", "both"))
        click.echo(
            f"\nOnly the new policies would have terminated {new}, only the old ones {old}, both {both}."
        )
        _print_rows([dict(row) for row in comparison["applications"]])
    _print_rows([_application_row(row) for row in found["sides"][-1]["applications"] if row["taken"]])
    remarks = [
        f"{side['file']}: {remark}" if len(found["sides"]) > 1 else remark
        for side in found["sides"]
        for remark in uncertainties(found, side)
    ]
    if any(side["taken"] for side in found["sides"]):
        remarks.append(DRY_RUN_MODEL)
    if remarks:
        click.echo("\n" + "\n".join(map(printable, remarks)))


def _print_rows(rows: Sequence[Row]) -> None:
    if rows:
        click.echo()
        print_table(rows[:_MAX_ROWS])


def _policy_row(row: Document) -> Row:
    return {
        "policy": row["policy"],
        "mode": row["mode"],
        "terminated": f"{row['taken']:,}",
        "used again": f"{row['used_again']:,}",
        "regret": percent(row["regret"]),
        "at most": percent(row["regret_at_most"]),
        "under 1% at": row["limit_under_1_percent"] or "",
    }


def _application_row(row: Document) -> Row:
    return {
        "application": row["application"],
        "terminated": f"{row['taken']:,}",
        "regret": percent(row["regret"]),
        "peak": "" if row["peak"] is None else row["peak"],
        "would be": "" if row["peak_would"] is None else row["peak_would"],
    }


def headline(side: Document) -> str:
    """Return how many sessions would have been terminated, and how many of them were used again."""
    if not side["taken"]:
        return "These policies would have terminated no session."
    of = counted(side["applications_taken"], "application")
    many = counted(side["taken"], "session")
    return f"These policies would have terminated {many} of {of}; {_regretted(side)}."


def _regretted(side: Document) -> str:
    decided, again = side["judged"], side["used_again"]
    if not decided:
        return "whether they were used again is not known yet"
    bound = f"at most {percent(side['regret_at_most'])} with 95% confidence"
    of = f"{again:,} of {decided:,} with a known outcome; {bound}"
    return f"{percent(again / decided)} of them were used again ({of})"


def peaks(found: Document, side: Document) -> str:
    """Return the peak of the slots as it was, and as it would have been."""
    peak, would = side["peak"], side["peak_would"]
    if not peak or not would:
        return "The history holds no slots."
    usable = f"{found['slots']['usable']:,} can be used by ordinary roles"
    was = f"The peak of {moment(peak['at'])} was {peak['used']:,} slots ({usable})"
    highest = f" The highest would have been {would['would']:,}, on {moment(would['at'])}."
    return f"{was}; it would have been {peak['would']:,}.{'' if would['at'] == peak['at'] else highest}"


def uncertainties(found: Document, side: Document) -> Iterator[str]:
    """Yield what this history cannot show."""
    if side["uncertain"]:
        many = counted(side["uncertain"], "more session")
        yield f"{many} may have been terminated: they fell due and changed or left between two snapshots."
    if found["gaps"]:
        unknown = words(Duration(round(found["unknown_seconds"] * SECOND)))
        yield f"{counted(found['gaps'], 'gap')} of {unknown} in all; after a gap every session is new."
    if side["too_soon"]:
        many = counted(side["too_soon"], "session")
        yield f"{many} without an outcome yet: followed for a shorter time than they had been idle."
    if tripped := [f"{row['policy']} ({row['trips']:,} times)" for row in side["policies"] if row["brakes"]]:
        yield f"The safety limit stopped {', '.join(tripped)}."


def period(found: Document) -> str:
    """Return `2025-06-11 00:00 to 2025-06-18 00:00 UTC (7d), 60,480 snapshots, 412 sessions on average`."""
    snapshots = found["readings"]
    average = found["observations"] / max(snapshots, 1)
    lasted = words(Duration(round(found["seconds"] * SECOND)))
    between = f"{moment(found['began'], day=False)} to {moment(found['ended'], day=False)} UTC ({lasted})"
    return f"{between}, {counted(snapshots, 'snapshot')}, {average:,.0f} sessions on average"


def moment(text: str | None, *, day: bool = True) -> str:
    """Return `Tue 2025-06-17 14:03`; a time outside the calendar as it stands."""
    try:
        return f"{datetime.fromisoformat(text or ''):{'%a ' if day else ''}%Y-%m-%d %H:%M}"
    except ValueError:
        return str(text)
