"""What a backtest has found, for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from reaper.cli.backtest_words import MODEL, Found, doubts, headline, peaks, percent, span_of
from reaper.cli.show import Row, print_table
from reaper.telemetry.plain import plain

_MOST_ROWS: Final = 12


def print_account(found: Found) -> None:
    """One server, one or two policy files."""
    click.echo(plain(f"{found['server']}: {span_of(found)}"))
    for side in found["sides"]:
        click.echo()
        click.echo(plain(f"{side['file']}: {headline(side)}"))
        click.echo(plain(peaks(found, side)))
        click.echo()
        print_table([_policy(row) for row in side["policies"]], empty="No policy is awake.")
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


def _policy(row: Found) -> Row:
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
