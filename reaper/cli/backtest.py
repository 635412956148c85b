"""`reaper backtest`: what policies would have done, on a history."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from reaper.cli.backtest_result import Acts, Document, Replayed, Side, account, print_account, written_to
from reaper.cli.errors import Misconfigured
from reaper.cli.options import output_option, policies_option
from reaper.cli.output import Output, print_document, progress
from reaper.cli.targets import read_settings
from reaper.config import Server, Settings
from reaper.history.folder import history_files
from reaper.history.format import BadHistory
from reaper.history.read import HistoryFile, HistoryStream, by_server
from reaper.insight.backtest.compare import Versus
from reaper.insight.backtest.replay import Rhythm
from reaper.insight.backtest.result import Backtest
from reaper.policy.text import plain


@click.command
@policies_option
@click.option(
    "--compare",
    nargs=2,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OLD NEW",
    envvar="REAPER_COMPARE",
    show_envvar=True,
    help="Two policy files side by side, in place of --policies.",
)
@click.option(
    "--history",
    "places",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    envvar="REAPER_HISTORY",
    show_envvar=True,
    help="A folder of history files, or one file; may be given several times.",
)
@click.option(
    "--server",
    metavar="NAME",
    envvar="REAPER_SERVER",
    show_envvar=True,
    help="Only this server of the history.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    envvar="REAPER_HTML",
    show_envvar=True,
    help="Write a report with charts as well: one file, which loads nothing from anywhere.",
)
@click.option(
    "--acts",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    envvar="REAPER_ACTS",
    show_envvar=True,
    help="Write every single would-be termination as a line of JSON.",
)
@output_option
def backtest(
    *,
    policies: Path,
    compare: tuple[Path, Path] | None,
    places: Sequence[Path],
    server: str | None,
    html: Path | None,
    acts: Path | None,
    output: Output,
) -> None:
    """Tell what policies would have done, and what became of those whom they would have ended.

    Needs no server, only what `reaper record-history` or `reaper run --history` has written, here or
    elsewhere. Every policy that is not off counts, as if it were enforced.
    """
    files = compare or (policies,)
    sides = [Side(name=str(path), settings=read_settings(path)) for path in files]
    try:
        servers = _servers(places, server)
        with written_to(acts) as written:
            accounts = _accounts(servers, sides, written)
    except BadHistory as bad:
        raise Misconfigured(str(bad)) from None
    except OSError as error:
        message = f"{error.filename}: {error.strerror or error}"
        raise Misconfigured(message) from None
    if html:
        _write_report(html, accounts)
    if output is not Output.TABLE:
        print_document({"servers": accounts}, output=output)
        return
    for number, found in enumerate(accounts):
        click.echo("\n" if number else "", nl=False)
        print_account(found)


def _servers(places: Sequence[Path], server: str | None) -> dict[str, Sequence[Path]]:
    files = [path for place in places for path in history_files(place)]
    found = {name: of for name, of in by_server(files, _tell).items() if server in {None, name}}
    if not found:
        told = f"no history of a server {server!r}" if server else "no history"
        message = f"{', '.join(map(str, places))}: {told} is there; `reaper record-history` makes one"
        raise Misconfigured(message)
    return found


def _accounts(servers: dict[str, Sequence[Path]], sides: Sequence[Side], acts: Acts) -> list[Document]:
    size = sum(path.stat().st_size for files in servers.values() for path in files)
    with progress("Replaying", size) as passed:
        return [account(_replayed(name, files, sides, acts, passed)) for name, files in servers.items()]


def _replayed(
    server: str, files: Sequence[Path], sides: Sequence[Side], acts: Acts, passed: Callable[[int], None]
) -> Replayed:
    backtests = [_backtest(server, side.settings) for side in sides]
    versus = Versus(backtests[0].name) if len(backtests) > 1 else None
    for reading in HistoryStream(files, told=_tell, passed=passed).readings():
        stretches = [each.read(reading) for each in backtests]
        for side, stretch in zip(sides, stretches, strict=True):
            acts.write(server, side.name, stretch)
        if versus:
            versus.read(reading, *stretches)
    if not backtests[0].findings.readings:
        message = f"{files[0]}: no whole look is in it, nor in any later file of this server: record on"
        raise Misconfigured(message)
    for each in backtests:
        each.end()
    if versus:
        versus.end()
    head = HistoryFile(files[0]).head()
    return Replayed(
        server=server,
        anonymous=bool(head and head.anonymous),
        sides=sides,
        backtests=backtests,
        versus=versus,
    )


def _backtest(server: str, settings: Settings) -> Backtest:
    known = {each.name: each for each in settings.servers}
    rules = settings.rules_for(known.get(server, Server(name=server, dsn="")))
    return Backtest(server, rules, Rhythm(settings.interval, settings.precision))


def _tell(what: str) -> None:
    click.echo(plain(what), err=True)


def _write_report(path: Path, accounts: Sequence[Document]) -> None:
    from reaper.cli.backtest_html import NoPlotting, report  # noqa: PLC0415 (loads the plotting library)

    try:
        path.write_text(report(accounts), encoding="utf-8")
    except NoPlotting as missing:
        raise Misconfigured(str(missing)) from None
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
