"""Which pools a reaper that runs leaves alone: what one look cannot know."""

from typing import Any

import click
from click.core import ParameterSource

from reaper.cli.exits import ServerTrouble
from reaper.cli.options import Command
from reaper.policy.churn import BackOff, Group
from reaper.policy.memory import Memory
from reaper.policy.session import Identity, Snapshot
from reaper.policy.spans import Instant, from_datetime
from reaper.record.reader import parse_time


def url_option(command: Command) -> Command:
    """`--url URL`."""
    return click.option(
        "--url",
        metavar="URL",
        envvar="REAPER_URL",
        show_envvar=True,
        help="The reaper that runs, such as http://127.0.0.1:9432: it knows which pools it leaves alone.",
    )(command)


def remembered(seen: Snapshot, url: str | None) -> Memory:
    """Everybody was seen before; and what the reaper at this address leaves alone is left alone."""
    memory = Memory.of(seen)
    if not url:
        return memory
    # Loaded where it is needed: nobody is asked as a rule.
    from reaper.cli.rehearsal_reaper import ask_for_verdicts  # noqa: PLC0415

    try:
        told = ask_for_verdicts(url)["left_alone"]
    except ServerTrouble as nobody:
        if click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE:
            raise
        nobody.show()  # the environment is for other commands too: this one can do without
        return memory
    pools = [each for each in told if each["server"] == seen.server]
    return memory.leaving_alone(
        {_group(each): _alone(each) for each in pools if each["server"] == seen.server}
    )


def _group(pool: dict[str, Any]) -> Group:
    return Group(pool["policy"], Identity(*(pool[key] for key in Identity._fields)))


def _alone(pool: dict[str, Any]) -> BackOff:
    until = parse_time(pool["until"])
    return BackOff(from_datetime(until) if until else Instant(0), pool["reason"])
