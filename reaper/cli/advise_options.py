"""What `reaper advise` can be asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import click

from reaper.cli.exits import Misconfigured
from reaper.cli.starting_file import STDOUT
from reaper.policy.advice.evidence import DEFAULT_QUIET
from reaper.policy.spans import SECOND, Span, exact_words, parse_span

Command = TypeVar("Command", bound=Callable[..., Any])

_LOOK: Final = "10s"
_SHORTEST: Final = Span(SECOND // 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of one call."""

    span: Span
    """How long to look; no time at all is one look."""
    idle_for: Span
    url: str | None
    snapshot: Path | None
    history: tuple[Path, ...]
    policy: str | None
    overwrite: bool
    as_json: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """As click hands them over."""
        given = dict(options)
        if sum(bool(given[key]) for key in ("url", "snapshot", "history")) > 1:
            message = "one of --url, --snapshot (REAPER_SNAPSHOT) and --history (REAPER_HISTORY)"
            raise Misconfigured(message)
        if given.pop("once"):
            given["span"] = Span(0)
        return cls(**given)


class _Duration(click.ParamType[Span]):
    """A duration as the policy file spells it."""

    name = "duration"

    def __init__(self, least: Span) -> None:
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Span:
        """`90s`, `10m`, `1h30m`."""
        try:
            span = parse_span(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a duration: write for example 90s, 10m, 1h30m or 2d", param, ctx)
        if span < self._least:
            self.fail(f"{value} is too short: write {exact_words(self._least)} or more", param, ctx)
        return span


def asking_options(command: Command) -> Command:
    """All of them."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


_ASKING: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        envvar="REAPER_JSON",
        show_envvar=True,
        help="The same as --output json.",
    ),
    click.option(
        "--for",
        "span",
        type=_Duration(Span(SECOND)),
        default=_LOOK,
        show_default=True,
        envvar="REAPER_FOR",
        show_envvar=True,
        help="Look for so long: what grows, and who comes back to life, shows only over time.",
    ),
    click.option(
        "--once",
        is_flag=True,
        envvar="REAPER_ONCE",
        show_envvar=True,
        help="Look once. It says less.",
    ),
    click.option(
        "--idle-for",
        type=_Duration(_SHORTEST),
        default=exact_words(DEFAULT_QUIET),
        show_default=True,
        envvar="REAPER_IDLE_FOR",
        show_envvar=True,
        help="What counts as idle for long; inside a transaction a tenth of it does.",
    ),
    click.option(
        "--url",
        metavar="URL",
        envvar="REAPER_ADVISE_URL",
        show_envvar=True,
        help="Ask the reaper that runs at this address, such as http://127.0.0.1:9432, and not the server: "
        "it is inside when the slots are full.",
    ),
    click.option(
        "--snapshot",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        envvar="REAPER_SNAPSHOT",
        show_envvar=True,
        help="Look at a saved snapshot, with no server; `-` is stdin.",
    ),
    click.option(
        "--history",
        multiple=True,
        metavar="DIR",
        type=click.Path(path_type=Path, exists=True),
        envvar="REAPER_HISTORY",
        show_envvar=True,
        help="Look at what `reaper record-history` or `reaper run --history` wrote, with no server.",
    ),
    click.option(
        "--policy",
        metavar="[FILE]",
        is_flag=False,
        flag_value=STDOUT,
        envvar="REAPER_ADVISE_POLICY",
        show_envvar=True,
        help="Write a policy file fitted to what was seen, of dry runs only; without FILE to stdout, and the "
        "advice is left out.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        envvar="REAPER_OVERWRITE",
        show_envvar=True,
        help="Let --policy replace a file that is there.",
    ),
)
