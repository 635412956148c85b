"""`reaper backtest`: what policies would have done, on a recorded history."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import click

from reaper.cli.backtest_html import MissingPlotly, report
from reaper.cli.backtest_result import Document, as_document, print_result
from reaper.cli.errors import Misconfigured
from reaper.cli.options import GroupedCommand, config_option, output_option
from reaper.cli.output import Output, print_document, progress, report_problem
from reaper.cli.targets import read_settings
from reaper.config import Server, Settings
from reaper.history.decode import BadHistory
from reaper.history.read import HistoryFile, HistoryReader, by_server
from reaper.history.write import history_files
from reaper.insight.backtest.compare import Comparison
from reaper.insight.backtest.replay import ReplayStep, Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.policy.time import isoformat


@click.command(cls=GroupedCommand)
@config_option
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OLD NEW",
    help="Two policy files side by side, in place of --config.",
)
@click.option(
    "--history",
    "places",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="A folder of history files, or one file; may be given several times.",
)
@click.option(
    "--server",
    metavar="NAME",
    help="Only this server of the history.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    help="Write a report with charts as well: one file, which loads nothing else.",
)
@click.option(
    "--acts",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    help="Write each termination that would have happened as a line of JSON.",
)
@output_option
def backtest(
    *,
    config: Path,
    compare: tuple[Path, Path] | None,
    places: Sequence[Path],
    server: str | None,
    html: Path | None,
    acts: Path | None,
    output: Output,
) -> None:
    """Report which sessions policies would have terminated, and whether their clients used them again.

    Needs no server, only files that `reaper history` or `reaper run --history` wrote. Every policy that is
    not disabled counts, as if it were enforced.
    """
    sides = [(str(path), read_settings(path)) for path in compare or (config,)]
    try:
        files = _files_by_server(places, server)
        with acts.open("w", encoding="ascii") if acts else nullcontext() as lines:
            documents = _documents(files, sides, lines)
        if html:
            html.write_text(report(documents), encoding="utf-8")
    except (BadHistory, MissingPlotly) as error:
        raise Misconfigured(str(error)) from None
    except OSError as error:
        verb = "written" if error.filename in {str(html), str(acts)} else "read"
        message = f"{error.filename}: cannot be {verb}: {error.strerror or error}"
        raise Misconfigured(message) from None
    if output is not Output.TABLE:
        print_document({"servers": documents}, output=output)
        return
    for number, found in enumerate(documents):
        click.echo("\n" if number else "", nl=False)
        print_result(found)


def _files_by_server(places: Sequence[Path], server: str | None) -> Mapping[str, Sequence[Path]]:
    files = [path for place in places for path in history_files(place)]
    found = {name: of for name, of in by_server(files, report_problem).items() if server in {None, name}}
    if not found:
        what = f"no history of a server {server!r}" if server else "no history"
        message = f"{', '.join(map(str, places))}: {what} is there; `reaper history` records one"
        raise Misconfigured(message)
    return found


def _documents(
    servers: Mapping[str, Sequence[Path]], sides: Sequence[tuple[str, Settings]], lines: IO[str] | None
) -> list[Document]:
    size = sum(path.stat().st_size for files in servers.values() for path in files)
    with progress("Replaying", size) as advance:
        return [_replay(name, files, sides, lines, advance) for name, files in servers.items()]


def _replay(
    server: str,
    files: Sequence[Path],
    sides: Sequence[tuple[str, Settings]],
    lines: IO[str] | None,
    advance: Callable[[int], None],
) -> Document:
    names = [name for name, _ in sides]
    backtests = [_backtest(server, settings) for _, settings in sides]
    comparison = Comparison(backtests[0].label) if len(backtests) > 1 else None
    for snapshot in HistoryReader(files, report_problem, advance=advance).snapshots():
        steps = [each.read(snapshot) for each in backtests]
        if lines:
            for name, step in zip(names, steps, strict=True):
                lines.writelines(_terminations(server, name, step))
        if comparison:
            comparison.read(snapshot, *steps)
    if not backtests[0].snapshots:
        message = f"{files[0]}: neither this nor a later file of the server holds a whole snapshot"
        raise Misconfigured(message)
    for each in backtests:
        each.end()
    if comparison:
        comparison.end()
    head = HistoryFile(files[0], report_problem).head()
    anonymous = bool(head and head.anonymous)
    return as_document(server, list(zip(names, backtests, strict=True)), comparison, anonymous=anonymous)


def _backtest(server: str, settings: Settings) -> Backtest:
    known = {each.name: each for each in settings.servers}
    rules = settings.rules_for(known.get(server, Server(name=server, dsn="")))
    return Backtest(server, rules, Rhythm(settings.interval, settings.min_interval))


def _terminations(server: str, policies: str, step: ReplayStep) -> list[str]:
    lines = []
    for at, candidate, again in step.terminations:
        session = candidate.session
        line = {
            "time": isoformat(at),
            "server": server,
            "policies": policies,
            "policy": candidate.policy.name,
            "mode": candidate.mode.value,
            "action": candidate.action.value,
            "pid": session.id.pid,
            "backend_start": isoformat(session.id.backend_start),
            **session.identity._asdict(),
            "state": session.state,
            "state_change": isoformat(session.state_change),
            "reason": candidate.reason,
        }
        lines += [] if again else [json.dumps(line) + "\n"]
    return lines
