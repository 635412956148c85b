"""What `reaper advise` can be asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import click

from reaper.cli.errors import Defect, Misconfigured
from reaper.config import BadPolicyFile, read
from reaper.config.draft import draft
from reaper.insight.advice.evidence import DEFAULT_QUIET, Evidence
from reaper.insight.advice.finding import about, many, watched
from reaper.insight.advice.proposals import proposals
from reaper.policy.rules import Mode
from reaper.policy.text import plain
from reaper.policy.time import SECOND, Span, exact_words, isoformat, parse_span

STDOUT: Final = "-"


def write_policy(evidence: Evidence, target: str, *, overwrite: bool) -> None:
    """Write it to this file, or to stdout."""
    text = starting_file(evidence)
    if target == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(target)
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"{path}: is there already, and is left as it is; name another file, or say --overwrite"
        raise Misconfigured(message) from None
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
    told = f"{path}: written; every policy in it is a dry run. Next: reaper plan -p {path}"
    click.echo(plain(told), err=True)


def starting_file(evidence: Evidence) -> str:
    """Its text, which `reaper check` has nothing against."""
    text = draft(proposals(evidence), about=_about(evidence))
    try:
        settings = read(text.encode(), file="what was drafted")
    except BadPolicyFile as bad:
        raise _broken(str(bad)) from None
    harmful = [policy.name for policy in settings.rules.policies if policy.mode is not Mode.DRY_RUN]
    if settings.warnings or harmful:
        raise _broken("; ".join([*map(str, settings.warnings), *harmful]))
    return text


def _broken(why: str) -> Defect:
    message = f"the policy file that was drafted is not in order, and was not written: {why}"
    return Defect(message)


def _about(evidence: Evidence) -> list[str]:
    at = (isoformat(evidence.last.at) or "")[:19]
    seen = f"{many(len(evidence.last.sessions), 'session')} seen {watched(evidence)}"
    return [
        (
            f"Drafted by `reaper advise --policy` for {evidence.last.server!r} at {at} UTC: {seen}, where "
            f"{about(evidence.quiet)} counted as idle for long."
        ),
        "",
        (
            "Every policy is a rehearsal: `reaper plan` shows what it means now, `reaper run` records what "
            "it would have done, and only `mode: enforce` lets it act. Read the reasons, and change what you "
            "know better."
        ),
        "",
        (
            "By default: at most 10 sessions a policy and cycle (max_per_cycle), and none at all if "
            "more than half of all clients would go (safety_limit). Both apply to each policy by itself: let "
            "one policy act, look how it goes, and then the next."
        ),
    ]


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
        help="Look at what `reaper history` or `reaper run --history` wrote, with no server.",
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
