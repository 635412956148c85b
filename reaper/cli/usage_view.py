"""The screen of `reaper usage`: readable in 80 columns, without colours, and in ASCII."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reaper.insight.usage.census import Census, Openings, Transaction, UsageGroup
from reaper.insight.usage.texts import ago, horizon, openings_words, pooler_words, waiting_words
from reaper.insight.usage.trend import Usage, Values, ranking_of
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, LOCAL, session_words
from reaper.policy.text import counted, printable
from reaper.telemetry.http.views import Overview


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownUsage:
    """The usage to show, and the service that it comes from."""

    usage: Usage | None
    """None if the service has several servers and none was named."""
    service: Overview | None = None
    url: str | None = None
    why: str | None = None
    """Why the service was used instead of the server."""


_WIDTH: Final = 110
_BAR_WIDTH: Final = 80
_TREND_CELLS: Final = 12
# On a narrower terminal a column is left out: half a number is worse than none.
_WIDTH_FOR_STATES: Final = 63
_WIDTH_FOR_TRENDS: Final = 77
_RANKINGS: Final = (
    ("applications", "application", "(unnamed)"),
    ("clients", "client", LOCAL),
    ("roles", "role", "(none)"),
    ("databases", "database", "(none)"),
)


class _Glyphs(NamedTuple):
    used: str
    free: str
    reserved: str
    rising: str


_LEVELS: Final = {"fine": "bold blue", "warning": "bold yellow", "alarm": "bold red"}
_UNICODE: Final = _Glyphs("█", "░", "▒", "▁▂▃▄▅▆▇█")
_ASCII: Final = _Glyphs("#", ".", "r", "_.,-~=+#")


class Screen:
    """One usage, from the slots down to the sessions that hold them."""

    def __init__(self, shown: ShownUsage) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw from top to bottom."""
        glyphs = _UNICODE if console.encoding.lower().startswith("utf") else _ASCII
        if self._shown.usage:
            yield from _usage(self._shown.usage, glyphs, min(options.max_width, _WIDTH))
        if self._shown.service:
            yield from _service(self._shown, self._shown.service, glyphs)


def _usage(usage: Usage, glyphs: _Glyphs, width: int) -> Iterator[RenderableType]:
    census = usage.census
    yield _headline(census, width)
    yield _bar(census.openings, glyphs, min(width, _BAR_WIDTH))
    yield from map(Text, openings_words(census.openings))
    if any(usage.used[:-1]):
        trend = _sparkline(usage.used, glyphs, cells=3 * _TREND_CELLS, top=census.openings.total)
        yield Text.assemble(("last 10 minutes  ", "dim"), (trend, "cyan"))
    yield Text()
    yield _states(census)
    # The most important first: a small terminal shows only the beginning.
    yield from _ranking(usage, _RANKINGS[0], glyphs, width)
    yield from _transactions(census)
    for each in _RANKINGS[1:]:
        yield from _ranking(usage, each, glyphs, width)
    if census.poolers:
        yield Text()
        yield from (Text(printable(pooler_words(each))) for each in census.poolers)


def _headline(census: Census, width: int) -> Text:
    left = Text(printable(census.server), style="bold", no_wrap=True, overflow="ellipsis")
    at = printable((census.at or "").replace("T", " ")[:19])
    full = Text("  FULL  ", style="bold reverse red") if census.openings.full else Text()
    right = Text.assemble(full, "  ", (f"{at} UTC", "dim"))
    left.append(" " * max(width - left.cell_len - right.cell_len, 1))
    return left.append_text(right)


def _bar(openings: Openings, glyphs: _Glyphs, width: int) -> Text:
    """All slots: in use, free and reserved, in proportion; what exists has at least one cell."""
    parts = (openings.used, openings.for_anybody, openings.for_superusers - openings.for_anybody)
    cells = [max(round(part * width / max(sum(parts), 1)), 1 if part else 0) for part in parts]
    cells[cells.index(max(cells))] += width - sum(cells)
    styles = (_LEVELS[openings.level], "dim", "yellow")
    return Text.assemble(*((glyphs[n] * cells[n], style) for n, style in enumerate(styles)))


def _states(census: Census) -> Text:
    parts = [f"{count} {state}" for state, count in census.states.items()]
    parts += [f"{census.uncounted} only counted"] if census.uncounted else []
    parts += [f"{census.unreadable} unreadable"] if census.unreadable else []
    parts += [f"and {counted(census.walsenders, 'walsender')}"] if census.walsenders else []
    return Text.assemble(
        (f"{counted(census.openings.used, 'session')}: ", "bold"), printable(", ".join(parts))
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def _ranking(
    usage: Usage, shown: tuple[str, str, str], glyphs: _Glyphs, width: int
) -> Iterator[RenderableType]:
    name, title, unnamed = shown
    ranking, trends = ranking_of(usage.census, name), usage.trends.get(name, ())
    states = ("active", "idle", "in tx") if width >= _WIDTH_FOR_STATES else ()
    trending = width >= _WIDTH_FOR_TRENDS and any(any(values[:-1]) for values in trends)
    table = _table(title, "sessions", *states, "oldest idle", *(["last 10 min"] if trending else []))
    table.columns[0].min_width, table.columns[0].max_width = (18 if states else 8), 34
    for column in table.columns[1 : len(states) + 3]:
        column.justify = "right"
    top = max((value or 0 for values in trends for value in values), default=0)
    for number, group in enumerate(ranking.groups):
        table.add_row(
            Text(printable(group.name) if group.name else unnamed, style="bold"),
            Text(str(group.count), style="bold"),
            *(_counts(group) if states else ()),
            Text(ago(group.oldest_idle_s)),
            *(
                [Text(_sparkline(trends[number], glyphs, cells=_TREND_CELLS, top=top), style="cyan")]
                if trending
                else []
            ),
        )
    if ranking.more_groups:
        table.add_row(f"{ranking.more_groups} more", str(ranking.more_sessions), style="dim")
    yield Text()
    yield table


def _counts(group: UsageGroup) -> Iterator[Text]:
    states = group.states
    waiting = states.get(IN_TRANSACTION, 0) + states.get(ABORTED, 0)
    for number, style in ((states.get(ACTIVE, 0), ""), (states.get(IDLE, 0), ""), (waiting, "yellow")):
        yield Text(str(number), style=style) if number else Text("·", style="dim")


def _transactions(census: Census) -> Iterator[RenderableType]:
    if not census.transactions:
        return
    yield Text()
    yield Text("open transactions", style="dim")
    for each in census.transactions:
        yield Text.assemble((f"pid {each.pid} ", "bold"), printable(session_words(each.session)))
        details = Text(_state(each))
        for words, style in ((waiting_words(each), "bold red"), (horizon(each), "yellow")):
            if words:
                details.append("; ").append(printable(words), style=style)
        yield Padding(details, (0, 0, 0, 2), expand=False)
    if census.more_transactions:
        yield Text(f"and {census.more_transactions} more", style="dim")


def _state(each: Transaction) -> str:
    """The state and the times; the server does not report how long a failed transaction has been open."""
    waited = f" for {ago(each.state_s)}" if each.state_s is not None else ""
    opened = f", open for {ago(each.open_s)}" if each.open_s is not None else ""
    return printable(f"{each.state or 'state hidden'}{waited}{opened}")


def _service(shown: ShownUsage, overview: Overview, glyphs: _Glyphs) -> Iterator[RenderableType]:
    if shown.usage:
        yield Text()
    yield from (Text(printable(line), style="dim") for line in _source(shown, overview))
    if not shown.usage and not overview.shown:
        table = _table("server", "state", "slots used", "last 10 min")
        for line in overview.servers:
            used = "" if line.used is None else f"{line.used} of {line.usable}"
            trend = _sparkline(line.trend, glyphs, cells=_TREND_CELLS, top=line.total or 0)
            table.add_row(*map(Text, (printable(line.name), printable(line.state), used, trend)))
        yield Text()
        yield table
        yield from (Text(printable(f"{line.name}: {line.why}")) for line in overview.servers if line.why)


def _source(shown: ShownUsage, overview: Overview) -> Iterator[str]:
    """Where the usage comes from, and which policies match now."""
    if shown.why:
        yield f"The server was not reached: {shown.why}"
    view = overview.shown
    seen = f", {view.seen_s_ago:g}s ago" if view and view.seen_s_ago is not None else ""
    dry_run = ", as a dry run" if overview.dry_run else ""
    yield f"From reaper {overview.version} at {shown.url}{seen}; up for {ago(overview.up_s)}{dry_run}."
    for policy in view.policies if view else ():
        if policy.matching:
            stopped = "; its safety limit stops it" if policy.tripped else ""
            yield f"Its policy {policy.name} ({policy.mode}) matches {policy.matching} of these now{stopped}."


def _sparkline(values: Values, glyphs: _Glyphs, *, cells: int, top: int) -> str:
    """The values as signs, the latest last; a blank where there was no snapshot."""
    size, steps = max(len(values) // cells, 1), len(glyphs.rising) - 1
    drawn = [_highest(values[start : start + size]) for start in range(0, len(values), size)][-cells:]
    return "".join(
        " " if value is None else glyphs.rising[min(round(value * steps / max(top, 1)), steps)]
        for value in drawn
    )


def _highest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
