"""`reaper demo`: a demonstration of a minute, on a server of its own."""

import asyncio
import io
import os
import sys
from pathlib import Path

import click

from reaper.audit.sinks import AuditLogFailed
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.cli.output import console
from reaper.demo.play import Interrupted, play
from reaper.demo.server import DEFAULT_MAJOR, EmbeddedServerError, find_binaries
from reaper.demo.story import USUAL_SECONDS, StoryStuck
from reaper.postgres.errors import ServerError

_SECONDS_WITHOUT_TERMINAL = 10
_SIGNALLED = 128


@click.command
@click.option(
    "--seconds",
    type=click.IntRange(5, 300),
    default=lambda: USUAL_SECONDS if _on_terminal() else _SECONDS_WITHOUT_TERMINAL,
    show_default=f"{USUAL_SECONDS}, or {_SECONDS_WITHOUT_TERMINAL} without a terminal",
    envvar="REAPER_DEMO_SECONDS",
    show_envvar=True,
    help="Approximate length of the story; the ages in its policies need some 15 s.",
)
@click.option(
    "--keep",
    is_flag=True,
    envvar="REAPER_DEMO_KEEP",
    show_envvar=True,
    help="Keep the audit log, the policy file and the server's log, and print where.",
)
@click.option(
    "--major",
    type=int,
    metavar="16|18",
    default=DEFAULT_MAJOR,
    show_default=True,
    envvar="REAPER_DEMO_MAJOR",
    show_envvar=True,
    help="The major version of the PostgreSQL that is started.",
)
def demo(*, seconds: int, keep: bool, major: int) -> None:
    """Watch the reaper at work on a PostgreSQL of its own: nothing to set up, nothing left behind.

    Starts a small server in a temporary folder and lets clients fill it up, some of which leak connections.
    Runs the policies first as a dry run, then enforces them; the healthy clients then check their
    connections. Ctrl-C ends the demo at any moment and cleans up, with exit code 130. Exit code 1: a healthy
    client has lost a connection.
    """
    try:
        binaries = find_binaries(major)
    except EmbeddedServerError as missing:
        raise Misconfigured(str(missing)) from None
    try:
        all_passed = asyncio.run(_play(binaries, duration=seconds, keep=keep))
    except Interrupted as interrupted:
        click.echo(f"The demo was {interrupted}; its server and its folder are removed.", err=True)
        raise click.exceptions.Exit(_SIGNALLED + interrupted.by) from None
    except (EmbeddedServerError, ServerError, AuditLogFailed, StoryStuck) as failed:
        raise ServerTrouble(str(failed)) from None
    if not all_passed:
        raise click.exceptions.Exit(Exit.PROBLEM)


async def _play(binaries: Path, *, duration: float, keep: bool) -> bool:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the output's encoding does not have must not end the demo.
        sys.stdout.reconfigure(errors="replace")
    screen = console()
    live = _on_terminal() and screen.is_terminal
    return await play(binaries, screen, live=live, duration=duration, keep=keep)


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
