"""`reaper advise`: findings about the connections of a server, with evidence and fixes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from reaper.cli.advise_view import as_document, print_advice
from reaper.cli.errors import Defect, Exit, Misconfigured
from reaper.cli.options import (
    DurationType,
    GroupedCommand,
    config_option,
    dsn_option,
    output_option,
    server_option,
    url_option,
)
from reaper.cli.output import Output, print_document, progress, report_problem
from reaper.cli.service_client import ServiceClient
from reaper.cli.snapshot import read_snapshot, server_trouble, snapshot_option
from reaper.cli.targets import pick_server, read_settings
from reaper.config import BadPolicyFile, read
from reaper.config.draft import draft
from reaper.history.decode import BadHistory
from reaper.history.read import HistoryFile, HistoryReader, by_server
from reaper.history.write import history_files
from reaper.insight.advice import EvidenceCollector, not_observed
from reaper.insight.advice import advise as findings_of
from reaper.insight.advice.evidence import DEFAULT_IDLE_LIMIT, Evidence
from reaper.insight.advice.finding import Urgency, about
from reaper.insight.advice.proposals import proposals
from reaper.policy.rules import Mode
from reaper.policy.text import counted
from reaper.policy.time import SECOND, Duration, exact_words, isoformat
from reaper.postgres.errors import ServerError
from reaper.service.connection import observe_for

_STDOUT: Final = "-"
_ALIASES: Final = "names: this history has aliases, which fit neither a policy file nor SQL"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The source of the snapshots."""

    config: Path
    dsn: str | None
    server: str | None
    span: Duration
    url: str | None
    snapshot: Path | None
    history: tuple[Path, ...]


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@output_option
@click.option(
    "--for",
    "span",
    type=DurationType(Duration(SECOND)),
    default="10s",
    show_default=True,
    help="How long to observe: one snapshot shows neither growth nor sessions that are used again.",
)
@click.option("--once", is_flag=True, help="Take one snapshot; it shows less.")
@click.option(
    "--idle-for",
    type=DurationType(Duration(SECOND // 10)),
    default=exact_words(DEFAULT_IDLE_LIMIT),
    show_default=True,
    help="A session counts as idle for long after this time; in a transaction after a tenth of it.",
)
@url_option
@snapshot_option("Judge")
@click.option(
    "--history",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True),
    help="Use files of `reaper history` or `reaper run --history` instead of a server.",
)
@click.option(
    "--policy",
    metavar="[FILE]",
    is_flag=False,
    flag_value=_STDOUT,
    help="Write a policy file of dry runs that fits the evidence; without FILE, print it, not the advice.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Let --policy replace an existing file.",
)
def advise(
    *,
    output: Output,
    once: bool,
    span: Duration,
    idle_for: Duration,
    policy: str | None,
    overwrite: bool,
    **source: Any,  # noqa: ANN401 (the other options)
) -> None:
    """Report problems with a server's connections, how certain they are, and how to fix them.

    Applies nothing. Exit code 1: something needs action; 2: usage; 3: the server cannot be reached. The
    policy file is needed only if it names the servers.
    """
    request = _Request(**source, span=Duration(0) if once else span)
    evidence, aliased = _collect(request, EvidenceCollector(idle_limit=idle_for))
    if policy is not None:
        if aliased:
            message = "a policy file needs the names of the server, and this history has aliases"
            raise Misconfigured(message)
        _write_policy(evidence, policy, overwrite=overwrite)
    if policy == _STDOUT:
        return
    findings = findings_of(evidence)
    missing = (*not_observed(evidence), *([_ALIASES] if aliased else []))
    if output is Output.TABLE:
        print_advice(findings, evidence, missing)
    else:
        document = as_document(findings, evidence, missing)
        print_document(document, output=output)
    if any(found.urgency is not Urgency.WORTH for found in findings):
        raise click.exceptions.Exit(Exit.PROBLEM)


def _collect(request: _Request, collector: EvidenceCollector) -> tuple[Evidence, bool]:
    """Return the evidence, and True if its names are aliases."""
    if sum(map(bool, (request.url, request.snapshot, request.history))) > 1:
        message = "choose one of --url, --snapshot and --history"
        raise Misconfigured(message)
    if request.history:
        return _from_history(request, collector)
    if request.snapshot is not None:
        collector.add(read_snapshot(request.snapshot))
    elif request.url:
        for snapshot in ServiceClient(request.url).snapshots(request.server, request.span):
            collector.add(snapshot)
    else:
        return _from_server(request, collector), False
    return collector.evidence(), False


def _from_server(request: _Request, collector: EvidenceCollector) -> Evidence:
    settings = read_settings(request.config) if request.config.exists() else None
    server = pick_server(settings, request.dsn, request.server)
    try:
        with progress(f"observing {server.name}", request.span / SECOND) as advance:
            before, after = asyncio.run(observe_for(server, request.span, collector.add, advance))
    except ServerError as error:
        raise server_trouble(server.name, error, command="advise") from None
    return collector.evidence(before=before, facts=after)


def _from_history(request: _Request, collector: EvidenceCollector) -> tuple[Evidence, bool]:
    where = ", ".join(map(str, request.history))
    with _readable():
        files = [path for place in request.history for path in history_files(place)]
        servers = by_server(files, report_problem)
        chosen = [found for name, found in servers.items() if request.server in {None, name}]
        if len(chosen) != 1:
            message = f"{where}: no history{f' of server {request.server!r}' if request.server else ''}"
            if chosen:
                message = f"{where}: histories of {', '.join(servers)}\nhint: choose one with --server NAME"
            raise Misconfigured(message)
        head = HistoryFile(chosen[0][0], report_problem).head()
        with progress("reading the history", sum(path.stat().st_size for path in chosen[0])) as advance:
            for recorded in HistoryReader(chosen[0], report_problem, advance=advance).snapshots():
                collector.add(recorded.snapshot())
    try:
        return collector.evidence(), bool(head and head.anonymous)
    except ValueError:
        message = f"{where}: no complete snapshot yet"
        raise Misconfigured(message) from None


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except BadHistory as bad:
        raise Misconfigured(str(bad)) from None
    except OSError as error:
        message = f"{error.filename}: cannot be read: {error.strerror or error}"
        raise Misconfigured(message) from None


def _write_policy(evidence: Evidence, target: str, *, overwrite: bool) -> None:
    text = starting_file(evidence)
    if target == _STDOUT:
        click.echo(text, nl=False)
        return
    try:
        with Path(target).open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"{target}: already exists\nhint: choose another file, or use --overwrite"
        raise Misconfigured(message) from None
    except OSError as error:
        message = f"{target}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
    report_problem(f"{target}: written; every policy in it is a dry run. Next: reaper plan -c {target}")


def starting_file(evidence: Evidence) -> str:
    """Return the text of a policy file that `reaper check` accepts without a warning."""
    text = draft(proposals(evidence), about=_header(evidence))
    try:
        settings = read(text.encode(), file="the draft")
    except BadPolicyFile as bad:
        raise _defect([str(bad)]) from None
    not_dry = [policy.name for policy in settings.rules.policies if policy.mode is not Mode.DRY_RUN]
    if settings.warnings or not_dry:
        raise _defect([*map(str, settings.warnings), *not_dry])
    return text


def _defect(why: Sequence[str]) -> Defect:
    return Defect(f"the drafted policy file has mistakes and was not written: {'; '.join(why)}")


def _header(evidence: Evidence) -> list[str]:
    at = (isoformat(evidence.last.at) or "")[:19]
    seen = f"{counted(len(evidence.last.sessions), 'session')} {evidence.observed}"
    return [
        (
            f"Drafted by `reaper advise --policy` for {evidence.last.server!r} at {at} UTC from {seen}; "
            f"{about(evidence.idle_limit)} counted as idle for long."
        ),
        "",
        (
            "Every policy is a dry run: `reaper plan` shows which sessions it matches now, `reaper run` logs "
            "what it would have done, and only `mode: enforce` lets it act. Read the reasons, and change "
            "what does not fit."
        ),
        "",
        (
            "Defaults that are not repeated below: at most 10 sessions per policy and cycle "
            "(`max_per_cycle`), and none at all if that would be more than half of all client sessions "
            "(`safety_limit`). Both count for each policy separately: enforce one policy, check the "
            "outcomes, and then the next."
        ),
    ]
