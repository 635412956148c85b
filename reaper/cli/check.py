"""`reaper check`: the policy file and, if a server is known, the rights that the reaper needs there."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Final

import click
from click.core import ParameterSource
from rich.console import Console
from rich.text import Text

from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.options import GroupedCommand, config_option, dsn_option, output_option, server_option
from reaper.cli.output import Output, Row, console, print_document
from reaper.cli.targets import pick_servers
from reaper.config import BadPolicyFile, Server, Settings, load
from reaper.policy.rules import Rules
from reaper.policy.text import counted, printable
from reaper.policy.time import Duration
from reaper.postgres.errors import ServerError
from reaper.postgres.preflight import PROTECTIONS, CheckResult, Level

_LIBPQ: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGUSER", "PGDATABASE")


@click.command(cls=GroupedCommand)
@config_option
@dsn_option
@server_option
@output_option
@click.option("--offline", is_flag=True, help="Check the policy file alone.")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning too.")
@click.option("--verbose", "-v", is_flag=True, help="List the protections too.")
@click.pass_context
def check(  # noqa: PLR0913 (one argument for each option)
    context: click.Context,
    /,
    *,
    config: Path,
    dsn: str | None,
    server: str | None,
    output: Output,
    offline: bool,
    strict: bool,
    verbose: bool,
) -> None:
    """Check the policy file and, with a server, the rights of the reaper there.

    The server is one of the policy file, --dsn, or libpq's PG* variables. Without a policy file only the
    rights are checked. Every finding comes with the SQL that fixes it. Exit code 1: the reaper cannot work
    there (with --strict: or a warning was found); 2: a mistake in the policy file; 3: the server cannot be
    reached.
    """
    named = context.get_parameter_source("config") is not ParameterSource.DEFAULT
    known = bool(dsn or any(name in os.environ for name in _LIBPQ))
    if known and not offline and not named and not config.exists():
        none, at_once = Rules(policies=()), Duration(0)
        settings = Settings(rules=none, interval=at_once, min_interval=at_once, servers=(), warnings=())
        rows = [_row("", CheckResult(check="policies", level=Level.NOTE, finding=f"there is no {config}"))]
    else:
        settings = _settings(config, output)
        rows = [_warning(str(warning)) for warning in settings.warnings] or [_fine(settings)]
    lost: list[str] = []
    if (known or settings.names_servers) and not offline:
        for each in pick_servers(settings, dsn, server):
            try:
                rows += [_row(each.name, found) for found in asyncio.run(_preflight(each, settings))]
            except ServerError as error:
                rows.append(_row(each.name, _lost(error)))
                lost.append(f"{each.name}: {error}")
    if output is Output.TABLE:
        _print([row for row in rows if verbose or row["level"] != Level.FINE or row["check"] != PROTECTIONS])
    else:
        print_document({"findings": rows}, output=output)
    if lost:
        raise ServerTrouble("; ".join(lost))
    if any(row["level"] == Level.REFUSAL or (strict and row["level"] == Level.WARNING) for row in rows):
        raise click.exceptions.Exit(Exit.PROBLEM)


def _settings(config: Path, output: Output) -> Settings:
    """Read the policy file; its mistakes are a document if one is wanted."""
    try:
        return load(config)
    except BadPolicyFile as bad:
        if output is not Output.TABLE:
            mistakes = [CheckResult("policies", Level.REFUSAL, line) for line in str(bad).splitlines()]
            print_document({"findings": [_row("", one) for one in mistakes]}, output=output)
            raise click.exceptions.Exit(Exit.USAGE) from None
        raise Misconfigured(str(bad)) from None


async def _preflight(server: Server, settings: Settings) -> Sequence[CheckResult]:
    # Imported here: checking a file alone does without the database driver.
    from reaper.service.connection import RunOptions, opened  # noqa: PLC0415

    async with opened(server, settings.rules_for(server), RunOptions()) as at:
        return at.findings


def _fine(settings: Settings) -> Row:
    rules = settings.rules
    counts = f"{len(rules.enforcing)} enforcing, {len(rules.dry_running)} in dry run"
    return _row(
        "", CheckResult(check="policies", level=Level.FINE, finding=f"{counts}, digest {rules.digest[:12]}")
    )


def _warning(text: str) -> Row:
    return _row("", CheckResult(check="policies", level=Level.WARNING, finding=text))


def _lost(error: ServerError) -> CheckResult:
    return CheckResult(check="connection", level=Level.REFUSAL, finding=str(error))


def _row(server: str, found: CheckResult) -> Row:
    return {
        "server": server,
        "check": found.check,
        "level": found.level.value,
        "finding": found.finding,
        "fix": found.fix,
    }


_STYLES: Final = {
    Level.FINE.value: "green",
    Level.NOTE.value: "cyan",
    Level.WARNING.value: "yellow",
    Level.REFUSAL.value: "bold red",
}


_INDENT: Final = 27
"""Column at which findings begin, after level and check."""
_NARROW: Final = 20


def _print(rows: Sequence[Row]) -> None:
    out = console()
    server: object = ""
    for row in rows:
        if row["server"] != server:
            server = row["server"]
            out.print(Text(f"\n{printable(server)}", style="bold"))
        level = printable(row["level"])
        finding = _hanging(printable(row["finding"]), out)
        out.print(Text.assemble((f"  {level:8}", _STYLES[level]), f"{row['check']:17}", finding))
        if row["fix"]:
            fix = _hanging(printable(row["fix"]), out)
            out.print(Text.assemble((f"{'fix: ':>{_INDENT}}", "dim"), fix))
    levels = Counter(row["level"] for row in rows)
    problems, warnings = levels[Level.REFUSAL.value], levels[Level.WARNING.value]
    counts = [counted(problems, "problem")] if problems else []
    counts += [counted(warnings, "warning")] if warnings else []
    style = "bold red" if problems else "yellow" if warnings else "bold green"
    out.print(Text("\n" + (", ".join(counts) or "OK"), style=style))


def _hanging(text: str, out: Console) -> str:
    """Wrap the text on a terminal; leave it on one line in a pipe."""
    if not out.is_terminal:
        return text
    return f"\n{' ' * _INDENT}".join(wrap(text, max(out.width - _INDENT, _NARROW)))
