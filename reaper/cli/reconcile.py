"""`reaper audit reconcile`: whether the record and the server tell the same."""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from reaper.audit.events import COUNTERS, INTENT, OUTCOME, Event
from reaper.audit.reader import moment
from reaper.audit.reconcile import OPEN, Act, Compared, Stretch, acts, compare, stretches
from reaper.audit.rotation import records_of
from reaper.audit.server_log import BadPrefix, Ended, NotALog, ServerLog, compiled
from reaper.cli.audit import events_of
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import dsn_option, output_option, policies_option, record_files, server_option
from reaper.cli.output import Output, print_document
from reaper.cli.targets import pick_server, read_settings
from reaper.config import Server
from reaper.policy.text import plain
from reaper.policy.time import isoformat
from reaper.postgres.errors import ServerError
from reaper.service.counters import count_at

_T = TypeVar("_T")
_MOST_TOLD: Final = 100
"""So many of a kind are told one by one."""


def _prefix(_: click.Context, __: click.Parameter, text: str | None) -> re.Pattern[str] | None:
    try:
        return compiled(text) if text else None
    except BadPrefix as bad:
        raise click.BadParameter(plain(bad)) from None


def _zone(_: click.Context, __: click.Parameter, name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"{plain(name)} is no time zone; write Europe/Berlin or UTC."
        raise click.BadParameter(message) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What came of it."""

    stretches: Sequence[Stretch]
    log: Compared | None

    @property
    def agrees(self) -> bool:
        return all(stretch.agrees for stretch in self.stretches) and not (self.log and self.log.missing)

    @property
    def compared(self) -> bool:
        """Whether anything of the record could be held against what the server tells."""
        log = self.log
        looked_up = log is not None and (log.agreed or log.missing or log.spared or not log.uncovered)
        return bool(looked_up) or any(stretch.counted is not None for stretch in self.stretches)


@click.command(short_help="Compare the record with the server's own log and count.")
@click.argument("files", nargs=-1, envvar="REAPER_AUDIT_LOG", callback=record_files)
@click.option(
    "--server-log",
    "logs",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="REAPER_SERVER_LOG",
    show_envvar=True,
    help="A file of the server's log: csvlog, jsonlog or stderr, plain or gzipped; several times if need be.",
)
@click.option(
    "--log-line-prefix",
    "prefix",
    metavar="PREFIX",
    callback=_prefix,
    envvar="REAPER_LOG_LINE_PREFIX",
    show_envvar=True,
    help="The server's log_line_prefix, for a log of stderr; without it the common ones are tried.",
)
@click.option(
    "--log-timezone",
    "zone",
    metavar="ZONE",
    callback=_zone,
    envvar="REAPER_LOG_TIMEZONE",
    show_envvar=True,
    help="The server's log_timezone, where the log alone does not tell.",
)
@click.option(
    "--live",
    is_flag=True,
    envvar="REAPER_AUDIT_LIVE",
    show_envvar=True,
    help="Ask the server too what it has counted by now.",
)
@policies_option
@dsn_option
@server_option
@output_option
def reconcile(  # noqa: PLR0913 (click hands every option over by name)
    *,
    files: tuple[str, ...],
    logs: tuple[Path, ...],
    prefix: re.Pattern[str] | None,
    zone: ZoneInfo | None,
    live: bool,
    policies: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
) -> None:
    """Compare the record in FILES with what the server tells.

    The server's own count of terminations stands in the record at the beginning and the end of each time
    that the reaper led. With --server-log each termination is looked for in the server's log as well. Exit
    code 1: the record knows of terminations that the server does not.
    """
    events = [event for event in _events(files) if server in {None, event.text("server")}]
    if live:
        events.append(_counted_now(policies, dsn, server))
    ours = acts(events)
    compared = _compared(ours, logs, ServerLog(prefix=prefix, zone=zone)) if logs else None
    answer = _Answer(stretches=tuple(stretches(events, ours)), log=compared)
    if output is Output.TABLE:
        _tell(answer)
    else:
        print_document(_document(answer), output=output)
    if not answer.agrees:
        sys.exit(Exit.NO)


def _events(files: Sequence[str]) -> Iterator[Event]:
    """Only what is asked about here, so that a long record fits."""
    try:
        records = records_of(Path(file) for file in files if file != "-")
    except OSError as error:
        message = f"The folder of the record cannot be read: {error.strerror or error}."
        raise Misconfigured(message) from error
    named = [str(file) for record in records for file in record]
    for event in events_of([*(file for file in files if file == "-"), *named]):
        if event.name in {INTENT, OUTCOME, COUNTERS}:
            yield event


def _compared(ours: Sequence[Act], logs: Sequence[Path], log: ServerLog) -> Compared:
    servers = sorted({act.server for act in ours})
    if len(servers) > 1:
        message = f"the record tells of {', '.join(servers)}: say with --server whose log that is"
        raise Misconfigured(plain(message))
    theirs = list[Ended]()
    for file in logs:
        try:
            theirs.extend(log.read(file))
        except (OSError, EOFError) as error:
            message = f"The log {plain(file)} cannot be read: {getattr(error, 'strerror', None) or error}."
            raise Misconfigured(message) from error
        except NotALog as strange:
            raise Misconfigured(plain(strange)) from None
    return compare(ours, theirs, first=log.first, last=log.last)


def _counted_now(policies: Path, dsn: str | None, server: str | None) -> Event:
    settings = read_settings(policies) if policies.exists() else None
    chosen = pick_server(settings, dsn, server if settings and settings.names_servers else None)
    try:
        return asyncio.run(_ask(chosen))
    except ServerError as error:
        message = f"{chosen.name}: {error}"
        raise ServerTrouble(message) from None


async def _ask(server: Server) -> Event:
    tallied = await count_at(server)
    fields = {
        "server": server.name,
        "server_time": isoformat(tallied.at),
        "server_started": isoformat(tallied.started),
        "databases": tallied.databases,
        "terminations": tallied.terminations,
        "counters_reset": isoformat(tallied.reset),
    }
    return Event(name=COUNTERS, time=datetime.now(UTC), fields=fields)


def _tell(answer: _Answer) -> None:
    for stretch in answer.stretches:
        click.echo(plain(_sentence(stretch)))
    if not answer.stretches:
        click.echo("The record holds no two counts of a server to compare; --live asks for the one of now.")
    if answer.log:
        _tell_log(answer.log)
    agree = "They agree." if answer.compared else "Nothing could be compared."
    click.echo(agree if answer.agrees else "They do not agree.")


def _sentence(stretch: Stretch) -> str:
    when = f"{stretch.server}, {stretch.begin:%Y-%m-%dT%H:%M:%SZ} to {stretch.end:%Y-%m-%dT%H:%M:%SZ}"
    if stretch.counted is None:
        return f"{when}: not compared, for {stretch.why}"
    recorded = _between(stretch.recorded, stretch.possible)
    said = f"{when}: the server counts {stretch.counted} terminated sessions, the record has {recorded}"
    if not stretch.agrees:
        return f"{said}: it claims more than there were"
    return f"{said}, so {_between(*stretch.others)} by others"


def _between(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _tell_log(log: Compared) -> None:
    click.echo(f"{len(log.agreed)} terminations of the record stand in the log")
    _each(log.missing, lambda act: f"terminated by us, not in the log: {_who(act)}")
    _each(log.resolved, lambda both: f"{_unknown(both[0])}, the log says: it was terminated: {both[1].place}")
    _each(log.spared, lambda act: f"{_unknown(act)}, the log says: it was not")
    _each(
        log.others,
        lambda end: f"in the log, not by us, somebody else: {end.place}: pid {end.pid} at {end.at}",
    )
    if log.uncovered:
        click.echo(f"{len(log.uncovered)} terminations are from before the log begins or after it ends")


def _each(found: Sequence[_T], sentence: Callable[[_T], str]) -> None:
    for each in islice(found, _MOST_TOLD):
        click.echo(plain(sentence(each)))
    if len(found) > _MOST_TOLD:
        click.echo(f"... and {len(found) - _MOST_TOLD} more")


def _unknown(act: Act) -> str:
    became = "has no outcome" if act.outcome == OPEN else f"is {act.outcome}"
    return f"{_who(act)} {became} in the record"


def _who(act: Act) -> str:
    return f"intent {act.intent}, pid {act.pid}, seen at {moment(act.seen)}"


def _document(answer: _Answer) -> object:
    return {
        "agrees": answer.agrees,
        "compared": answer.compared,
        "counts": [_stretch(stretch) for stretch in answer.stretches],
        "log": answer.log and _log(answer.log),
    }


def _stretch(stretch: Stretch) -> dict[str, object]:
    counted = stretch.counted is not None
    return {
        "server": stretch.server,
        "from": moment(stretch.begin),
        "to": moment(stretch.end),
        "agrees": stretch.agrees,
        "server_counts": stretch.counted,
        "record_has": stretch.recorded,
        "record_may_have": stretch.possible,
        "others_at_least": stretch.others[0] if counted else None,
        "others_at_most": stretch.others[1] if counted else None,
        "not_compared": stretch.why or None,
    }


def _log(log: Compared) -> dict[str, object]:
    return {
        "agreed": len(log.agreed),
        "terminated_by_us_not_in_the_log": [_act(act) for act in log.missing],
        "in_the_log_not_by_us": [_ended(ended) for ended in log.others],
        "resolved_as_terminated": [{**_act(act), **_ended(ended)} for act, ended in log.resolved],
        "resolved_as_not_terminated": [_act(act) for act in log.spared],
        "outside_the_log": [_act(act) for act in log.uncovered],
    }


def _act(act: Act) -> dict[str, object]:
    return {"intent": act.intent, "pid": act.pid, "outcome": act.outcome, "seen": moment(act.seen)}


def _ended(ended: Ended) -> dict[str, object]:
    return {"pid": ended.pid, "at": moment(ended.at), "file": ended.place.file, "line": ended.place.line}
