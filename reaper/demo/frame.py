"""One frame of the live view, for 80 columns and 24 lines and for more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from reaper.demo.clients import CUSTOMER
from reaper.demo.lineup import Group, Tone, groups, standings
from reaper.demo.score import HINT, POLICY, Act, Luck, News, Score
from reaper.policy.session import Slots
from reaper.policy.text import plain

_WIDEST: Final = 110
_LABEL: Final = 10

_TONES: Final = {
    Tone.SPARED: "green",
    Tone.IN_USE: "blue",
    Tone.DUE: "yellow",
    Tone.ENDED: "bold red",
}
_SHOWN_ABOVE: Final = (HINT, POLICY)
_PROLOGUE: Final = Act(number=0, title="A PostgreSQL of its own, and these policies")
_KINDS: Final = {
    "act": "bold",
    "client": "blue",
    "server": "blue",
    "refused": "bold red",
    "served": "bold green",
    "spared": "green",
    "lives": "bold green",
    "dead": "bold red",
    "rehearsed": "yellow",
    "terminated": "bold red",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs of a terminal that knows more than ASCII, or of one that does not."""

    used: str
    free: str
    rule: str

    @classmethod
    def of(cls, encoding: str) -> "Glyphs":
        """The signs that an encoding can write."""
        return cls("■", "·", "─") if encoding.lower().startswith("utf") else cls("#", ".", "-")


class Frame:
    """The story at this moment; it fills the height that it is given."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw from top to bottom; the news take what is left."""
        width = min(options.max_width, _WIDEST)
        height = options.height or console.height
        drawn = 0
        for part in self._upper(Glyphs.of(console.encoding), width):
            lines = console.render_lines(part, options.update(width=width, height=None), pad=False)
            drawn += len(lines)
            yield part
        told = [news for news in self._score.news if news.kind not in _SHOWN_ABOVE]
        for news in told[-max(height - drawn, 1) :]:
            yield _news(news)

    def _upper(self, glyphs: Glyphs, width: int) -> Iterator[Text | Table]:
        score = self._score
        yield _title(score, width)
        yield Text(glyphs.rule * width, style="dim")
        yield from _act(score)
        if score.act is None:
            yield from map(_policy_line, score.policies.splitlines())
            return
        yield from _slots(score, glyphs)
        yield from _customer(score)
        yield Text()
        if score.cycle:
            yield _table(groups(score.cycle, [name for name in score.applications if name != CUSTOMER]))
            yield Text()


def _title(score: Score, width: int) -> Text:
    left = Text("reaper demo", style="bold")
    mode = f"mode: {score.mode}" if score.mode else ""
    style = "bold red" if score.mode == "enforce" else "bold yellow"
    minutes, seconds = divmod(int(score.seconds), 60)
    right = Text.assemble((mode, style), "   ", (score.server, "default"), f"   {minutes}:{seconds:02}")
    left.append(" " * max(width - len(left.plain) - len(right.plain), 1))
    return _one_line(left.append_text(right))


def _act(score: Score) -> Iterator[Text]:
    act = score.act or _PROLOGUE
    number = f"Act {act.number} of 3" if act.number else "Prologue"
    yield _one_line(Text.assemble((f"{number:12}", "bold magenta"), (act.title, "bold")))
    yield _one_line(Text(f"{'':12}{act.hint}"))
    yield Text()


def _policy_line(line: str) -> Text:
    rule, sign, comment = line.partition("#")
    style = "bold yellow" if rule.lstrip().startswith("mode:") else ""
    return _one_line(Text().append(rule, style=style).append(sign + comment, style="dim"))


def _slots(score: Score, glyphs: Glyphs) -> Iterator[Text]:
    if score.cycle is None:
        yield _label("slots")
        yield _label("")
        return
    slots = score.cycle.snapshot.slots
    tones = [one.tone for one in standings(score.cycle)]
    bar = _label("slots")
    for tone in tones:
        bar.append(f"{glyphs.used} ", style=_TONES[tone])
    bar.append(f"{glyphs.free} " * max(slots.total - len(tones), 0), style="dim")
    yield _one_line(bar.append_text(_used(slots)))
    legend = _label("")
    for tone, style in _TONES.items():
        legend.append(f"{glyphs.used} ", style=style).append(f"{tone}   ", style="dim")
    yield _one_line(legend.append(f"{glyphs.free} free", style="dim"))


def _used(slots: Slots) -> Text:
    full = slots.used >= slots.usable
    return Text(f" {slots.used} of {slots.usable} used", style="bold red" if full else "bold")


def _customer(score: Score) -> Iterator[Text]:
    line = _label("customer")
    if score.refusal:
        yield _one_line(line.append(score.refusal, style="bold red"))
    elif score.before.tries:
        yield line.append("gets in", style="bold green")
    else:
        yield line
    if score.before.tries:
        told = f"refused {_luck(score.before)} times"
        told += f", since the first termination {_luck(score.after)}" if score.after.tries else ""
        yield _one_line(_label("").append(told, style="dim"))


def _luck(luck: Luck) -> str:
    return f"{luck.refused} of {luck.tries}"


def _table(rows: Iterator[Group]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("application", no_wrap=True, min_width=12)
    table.add_column("#", justify="right", no_wrap=True, min_width=2)
    table.add_column("longest", no_wrap=True, min_width=18)
    table.add_column("the reaper says", no_wrap=True, overflow="ellipsis")
    for row in rows:
        gone = "dim" if not row.sessions else ""
        table.add_row(
            Text(plain(row.application), style=gone),
            Text(str(row.sessions or ""), style="bold"),
            Text(row.state),
            Text(plain(row.says), style=gone or _TONES[row.tone]),
        )
    return table


def _news(news: News) -> Text:
    style = _KINDS.get(news.kind.partition(" ")[0], "default")
    return _one_line(Text.assemble((f"{news.after:5.1f}s  ", "dim"), (f"{news.kind:11}", style), news.text))


def _label(text: str) -> Text:
    return Text().append(f"{text:{_LABEL}}", style="dim")


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
