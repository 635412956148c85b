"""`reaper audit reconcile`: compare the audit log with the server's log and count."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import click

from reaper.audit.events import COUNTERS, INTENT, OUTCOME, Event
from reaper.audit.reader import format_time
from reaper.audit.reconcile import (
    OPEN,
    AuditedTermination,
    CountedPeriod,
    LogComparison,
    LoggedTermination,
    NotAServerLog,
    ServerLog,
    compare,
    counted_periods,
    terminations,
)
from reaper.cli.audit import audit_logs, events_of
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import (
    GroupedCommand,
    audit_log_files,
    config_option,
    dsn_option,
    output_option,
    server_option,
)
from reaper.cli.output import Output, print_document
from reaper.cli.targets import pick_server, read_settings
from reaper.policy.text import printable
from reaper.postgres.errors import ServerError
from reaper.service.counters import read_count

_T = TypeVar("_T")
_MOST_PRINTED: Final = 100
"""Of each kind; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reconciliation:
    periods: Sequence[CountedPeriod]
    log: LogComparison | None

    @property
    def agrees(self) -> bool:
        return all(period.agrees for period in self.periods) and not (self.log and self.log.missing)

    @property
    def compared(self) -> bool:
        """At least one count or one termination could be compared."""
        log = self.log
        searched = log is not None and (log.matched or log.missing or log.not_terminated or not log.outside)
        return bool(searched) or any(period.counted is not None for period in self.periods)


@click.command(cls=GroupedCommand, short_help="Compare the audit log with the server's own log and count.")
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=audit_log_files)
@click.option(
    "--server-log",
    "logs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A csvlog or jsonlog of the server, plain or gzipped; may be given several times.",
)
@click.option("--live", is_flag=True, help="Read the server's present count too.")
@config_option
@dsn_option
@server_option
@output_option
def reconcile(
    *,
    files: tuple[str, ...],
    logs: tuple[Path, ...],
    live: bool,
    config: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
) -> None:
    """Compare the audit log in FILES with what the server says.

    The audit log holds the server's own count of terminations at the beginning and the end of each time that
    the reaper led. With --server-log, each termination is searched in the server's log as well. Exit code 1:
    the audit log has terminations that the server does not have.
    """
    events = [event for event in _events(files) if server in {None, event.text("server")}]
    if live:
        events.append(_present_count(config, dsn, server))
    ours = terminations(events)
    log = _compare_log(ours, logs) if logs else None
    found = _Reconciliation(periods=tuple(counted_periods(events, ours)), log=log)
    if output is Output.TABLE:
        _print(found)
    else:
        document = {
            "agrees": found.agrees,
            "compared": found.compared,
            "counts": [_period_document(period) for period in found.periods],
            "log": log and _log_document(log),
        }
        print_document(document, output=output)
    if not found.agrees:
        sys.exit(Exit.PROBLEM)


def _events(files: Sequence[str]) -> Iterator[Event]:
    """Only the events that are compared, so that a long audit log fits into memory."""
    named = [str(file) for log in audit_logs(files) for file in log]
    for event in events_of([*(file for file in files if file == "-"), *named]):
        if event.name in {INTENT, OUTCOME, COUNTERS}:
            yield event


def _compare_log(ours: Sequence[AuditedTermination], files: Sequence[Path]) -> LogComparison:
    servers = sorted({each.server for each in ours})
    if len(servers) > 1:
        message = (
            f"the audit log has several servers ({', '.join(servers)}): name that of the log with --server"
        )
        raise Misconfigured(printable(message))
    log, logged = ServerLog(), list[LoggedTermination]()
    for file in files:
        try:
            logged.extend(log.read(file))
        except (OSError, EOFError) as error:
            message = (
                f"The log {printable(file)} cannot be read: {getattr(error, 'strerror', None) or error}."
            )
            raise Misconfigured(message) from error
        except NotAServerLog as wrong:
            raise Misconfigured(str(wrong)) from None
    return compare(ours, logged, first=log.first, last=log.last)


def _present_count(config: Path, dsn: str | None, server: str | None) -> Event:
    settings = read_settings(config) if config.exists() else None
    chosen = pick_server(settings, dsn, server if settings and settings.names_servers else None)
    try:
        fields = asyncio.run(read_count(chosen))
    except ServerError as error:
        message = f"{chosen.name}: {error}"
        raise ServerTrouble(message) from None
    return Event(name=COUNTERS, time=datetime.now(UTC), fields=fields)


def _print(found: _Reconciliation) -> None:
    for period in found.periods:
        click.echo(printable(_period_sentence(period)))
    if not found.periods:
        click.echo("The audit log has no two counts of a server to compare; --live adds the present one.")
    if found.log:
        _print_log(found.log)
    agree = "They agree." if found.compared else "Nothing could be compared."
    click.echo(agree if found.agrees else "They do not agree.")


def _period_sentence(period: CountedPeriod) -> str:
    when = f"{period.server}, {period.begin:%Y-%m-%dT%H:%M:%SZ} to {period.end:%Y-%m-%dT%H:%M:%SZ}"
    if period.counted is None:
        return f"{when}: not compared, because {period.why}"
    recorded = _between(period.recorded, period.possible)
    counts = f"{when}: the server counts {period.counted} terminated sessions, the audit log has {recorded}"
    if not period.agrees:
        return f"{counts}: more than the server has"
    return f"{counts}, so {_between(*period.others)} by others"


def _between(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _print_log(log: LogComparison) -> None:
    click.echo(f"{len(log.matched)} terminations of the audit log are in the server's log")
    _print_each(log.missing, lambda each: f"terminated by us, not in the log: {_session(each)}")
    _print_each(
        log.resolved, lambda both: f"{_uncertain(both[0])}, by the log it was terminated: {both[1].place}"
    )
    _print_each(log.not_terminated, lambda each: f"{_uncertain(each)}, by the log it was not terminated")
    _print_each(log.others, lambda each: f"in the log, not by us: {each.place}: pid {each.pid} at {each.at}")
    if log.outside:
        click.echo(f"{len(log.outside)} terminations are from before the log begins or after it ends")


def _print_each(found: Sequence[_T], sentence: Callable[[_T], str]) -> None:
    for each in islice(found, _MOST_PRINTED):
        click.echo(printable(sentence(each)))
    if len(found) > _MOST_PRINTED:
        click.echo(f"... and {len(found) - _MOST_PRINTED} more")


def _uncertain(ours: AuditedTermination) -> str:
    outcome = "has no outcome" if ours.outcome == OPEN else f"is {ours.outcome}"
    return f"{_session(ours)} {outcome} in the audit log"


def _session(ours: AuditedTermination) -> str:
    return f"intent {ours.intent}, pid {ours.pid}, seen at {format_time(ours.seen)}"


def _period_document(period: CountedPeriod) -> dict[str, object]:
    others = period.others if period.counted is not None else (None, None)
    return {
        "server": period.server,
        "from": format_time(period.begin),
        "to": format_time(period.end),
        "agrees": period.agrees,
        "server_counts": period.counted,
        "record_has": period.recorded,
        "record_may_have": period.possible,
        "others_at_least": others[0],
        "others_at_most": others[1],
        "not_compared": period.why or None,
    }


def _log_document(log: LogComparison) -> dict[str, object]:
    return {
        "agreed": len(log.matched),
        "terminated_by_us_not_in_the_log": [_termination(each) for each in log.missing],
        "in_the_log_not_by_us": [_logged(each) for each in log.others],
        "resolved_as_terminated": [
            {**_termination(ours), **_logged(logged)} for ours, logged in log.resolved
        ],
        "resolved_as_not_terminated": [_termination(each) for each in log.not_terminated],
        "outside_the_log": [_termination(each) for each in log.outside],
    }


def _termination(ours: AuditedTermination) -> dict[str, object]:
    return {"intent": ours.intent, "pid": ours.pid, "outcome": ours.outcome, "seen": format_time(ours.seen)}


def _logged(each: LoggedTermination) -> dict[str, object]:
    return {"pid": each.pid, "at": format_time(each.at), "file": each.place.file, "line": each.place.line}
