"""`reaper demo`: see it at work, in a minute and on a server of its own."""

import asyncio
import io
import os
import sys

import click
from rich.console import Console

from reaper.audit.sinks import RecordFailed
from reaper.cli.errors import Exit, Misconfigured, ServerTrouble
from reaper.demo.live import LiveStage
from reaper.demo.play import Script, play
from reaper.demo.server import DEFAULT_MAJOR, EmbeddedServerError, find_binaries
from reaper.demo.stage import PlainStage, Stage
from reaper.demo.tempo import USUAL_SECONDS, Interrupted, StoryStuck
from reaper.postgres.errors import ServerError

_SECONDS_FOR_PROGRAMS = 10
_SIGNALLED = 128


@click.command
@click.option(
    "--seconds",
    type=click.IntRange(5, 300),
    default=lambda: USUAL_SECONDS if _on_terminal() else _SECONDS_FOR_PROGRAMS,
    show_default=f"{USUAL_SECONDS}, or {_SECONDS_FOR_PROGRAMS} when nobody watches",
    envvar="REAPER_DEMO_SECONDS",
    show_envvar=True,
    help="About how long the story takes; the ages in its policies set a lower limit of some 15 s.",
)
@click.option(
    "--keep",
    is_flag=True,
    envvar="REAPER_DEMO_KEEP",
    show_envvar=True,
    help="Keep the record, the policy file and the server's log, and say where.",
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

    Starts a small server in a temporary folder, lets leaky and honest clients fill it up, rehearses the
    policies, enforces them, and asks whoever should live. Ctrl-C ends it at any moment and cleans up; the
    exit code is then 130. Exit code 1: somebody was terminated who should live.
    """
    try:
        script = Script(binaries=find_binaries(major), seconds=seconds, keep=keep)
    except EmbeddedServerError as missing:
        raise Misconfigured(str(missing)) from None
    try:
        all_well = asyncio.run(play(script, _stage()))
    except Interrupted as interrupted:
        click.echo(f"The demo was {interrupted}; its server and its folder are gone.", err=True)
        raise click.exceptions.Exit(_SIGNALLED + interrupted.by) from None
    except (EmbeddedServerError, ServerError, RecordFailed, StoryStuck) as failed:
        raise ServerTrouble(str(failed)) from None
    if not all_well:
        raise click.exceptions.Exit(Exit.NO)


def _stage() -> Stage:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An output that cannot write a sign is no reason to end.
        sys.stdout.reconfigure(errors="replace")
    return LiveStage(Console()) if _on_terminal() else PlainStage()


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
