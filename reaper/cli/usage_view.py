"""Who holds the connections, on a terminal: readable in 80 columns, without colours, and in ASCII."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from reaper.cli.errors import ServerTrouble
from reaper.cli.service_client import NoReaper, ask_reaper
from reaper.config import Server
from reaper.insight.usage.census import Census, Group, Openings, Ranking, Transaction, census, shortened
from reaper.insight.usage.texts import ago, horizon, openings_words, pooler_words, waiting_words
from reaper.insight.usage.trend import Trends, Usage, Values, ranking_of
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION, LOCAL, Snapshot, whose
from reaper.policy.text import plain
from reaper.postgres.errors import ServerError, Unreachable
from reaper.postgres.preflight import refuse
from reaper.service.connection import OpenConnection, RunOptions, opened
from reaper.telemetry.http.views import Overview

_WAYS: Final = """\
If its slots are taken, there are four ways in:
  1. A reaper that runs is already inside: `reaper usage --url http://HOST:9432`, where it listens.
  2. A superuser has slots of its own: `reaper usage --dsn "... user=postgres"`.
  3. From PostgreSQL 16 on, so has a role with `GRANT pg_use_reserved_connections`, where
     reserved_connections is more than 0.
  4. On the server's host, `ps -u postgres -o pid,args` shows role, database, client and state of
     each session; `kill PID` ends that one, as pg_terminate_backend does. Never `kill -9`: that
     ends all of them."""


def nobody_gets_in(server: str, error: ServerError, nobody: Exception | None) -> str:
    """All that is known, and every way that is left where it could be the slots."""
    ways = [_WAYS] if isinstance(error, Unreachable) else []
    return "\n".join([f"{server}: {error}", *([str(nobody)] if nobody else []), *ways])


_MISLEADING = {"pooler", "visibility", "version"}
"""Through a pooler or half blind, what we show would look true and be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen, and by whom when it was a reaper."""

    usage: Usage | None
    """Nothing when a reaper looks after several servers and none was named, or has not seen it yet."""
    reaper: Overview | None = None
    url: str | None = None
    why: str | None = None
    """Why a reaper was asked in the server's place."""


class Source(Protocol):
    """Shows who holds the connections, as often as one asks."""

    async def look(self) -> Seen:
        """Look now; ServerTrouble when nobody can tell."""

    async def close(self) -> None:
        """Give back what was held for looking again."""


class Saved:
    """A look in a file."""

    def __init__(self, snapshot: Snapshot, *, top: int) -> None:
        self._usage = Trends().usage(census(snapshot, top=top), 0.0)

    async def look(self) -> Seen:
        """The same each time."""
        return Seen(usage=self._usage)

    async def close(self) -> None:
        """There is nothing to give back."""


class Told:
    """A reaper that runs."""

    def __init__(self, url: str, *, server: str | None, top: int) -> None:
        self._url = url
        self._server = server
        self._top = top

    async def look(self) -> Seen:
        """Ask it."""
        try:
            overview = await asyncio.to_thread(ask_reaper, self._url, self._server)
        except NoReaper as nobody:
            raise ServerTrouble(str(nobody)) from None
        return Seen(usage=_shown(overview, self._top), reaper=overview, url=self._url)

    async def close(self) -> None:
        """There is nothing to give back."""


def _shown(overview: Overview, top: int) -> Usage | None:
    usage = overview.shown.usage if overview.shown else None
    return usage and replace(usage, census=shortened(usage.census, top=top))


class Live:
    """The server itself, over one connection that is held while somebody watches; else a reaper there."""

    def __init__(self, server: Server, *, top: int, reaper: str | None) -> None:
        self._server = server
        self._top = top
        self._reaper = reaper
        self._trends = Trends()
        self._connection = AsyncExitStack()
        self._at: OpenConnection | None = None

    async def look(self) -> Seen:
        """Ask the server, or a reaper that is already inside."""
        try:
            return Seen(usage=await self._asked())
        except ServerError as error:
            await self.close()
            return await self._told(error)

    async def close(self) -> None:
        """Give the slot back."""
        self._at = None
        await self._connection.aclose()

    async def _asked(self) -> Usage:
        if self._at is None:
            connecting = opened(self._server, None, RunOptions(dry_run=True))
            self._at = await self._connection.enter_async_context(connecting)
            refuse(tuple(found for found in self._at.findings if found.check in _MISLEADING))
        counted = census(await self._at.observer.everybody(), top=self._top)
        now = time.monotonic()
        self._trends.note(counted, now)
        return self._trends.usage(counted, now)

    async def _told(self, error: ServerError) -> Seen:
        nobody: NoReaper | None = None
        if self._reaper:
            try:
                overview = await asyncio.to_thread(ask_reaper, self._reaper, self._server.name)
            except NoReaper as reason:
                nobody = reason
            else:
                usage = _shown(overview, self._top)
                return Seen(usage=usage, reaper=overview, url=self._reaper, why=str(error))
        raise ServerTrouble(nobody_gets_in(self._server.name, error, nobody)) from None


_WIDEST: Final = 110
_TREND: Final = 12
_ROOM_FOR_STATES: Final = 63
_ROOM_FOR_TRENDS: Final = 77
"""On a narrower terminal a column is left out: half a number is worse than none."""
_RANKED: Final = (
    ("applications", "application", "(unnamed)"),
    ("clients", "client", LOCAL),
    ("roles", "role", "(none)"),
    ("databases", "database", "(none)"),
)


class Glyphs(NamedTuple):
    """The signs of a terminal that knows more than ASCII, or of one that does not."""

    used: str
    free: str
    kept: str
    rising: str

    @classmethod
    def of(cls, encoding: str) -> "Glyphs":
        """The signs that an encoding can write."""
        if encoding.lower().startswith("utf"):
            return cls("█", "░", "▒", "▁▂▃▄▅▆▇█")
        return cls("#", ".", "r", "_.,-~=+#")


class Screen:
    """One look, from the slots down to who holds them."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw from top to bottom, the answer first."""
        glyphs = Glyphs.of(console.encoding)
        width = min(options.max_width, _WIDEST)
        if self._seen.usage:
            yield from _drawn(self._seen.usage, glyphs, width)
        if self._seen.reaper:
            yield from _reaper(self._seen, self._seen.reaper, glyphs)


def _drawn(usage: Usage, glyphs: Glyphs, width: int) -> Iterator[RenderableType]:
    counted = usage.census
    openings = counted.openings
    yield _headline(counted, width)
    yield _bar(openings, glyphs, width)
    yield from map(_sentence, openings_words(openings))
    if any(usage.used[:-1]):
        trend = sparkline(usage.used, glyphs, cells=3 * _TREND, top=openings.total)
        yield Text.assemble(("last 10 minutes  ", "dim"), (trend, "cyan"))
    yield Text()
    yield _states(counted)
    # The most telling first: a screen of few lines shows no more than its beginning.
    yield from _ranked(usage, _RANKED[:1], glyphs, width)
    yield from _transactions(counted)
    yield from _ranked(usage, _RANKED[1:], glyphs, width)
    yield from _notes(counted)


def _ranked(
    usage: Usage, rankings: Sequence[tuple[str, str, str]], glyphs: Glyphs, width: int
) -> Iterator[RenderableType]:
    for ranking, title, nameless in rankings:
        yield Text()
        trends = usage.trends.get(ranking, ()) if width >= _ROOM_FOR_TRENDS else ()
        yield _table(ranking_of(usage.census, ranking), trends, (title, nameless), glyphs, width)


def _headline(counted: Census, width: int) -> Text:
    openings = counted.openings
    left = Text(plain(counted.server), style="bold")
    at = plain((counted.at or "").replace("T", " ")[:19])
    full = Text("  FULL  ", style="bold reverse red") if openings.full else Text()
    right = Text.assemble(full, "  ", (f"{at} UTC", "dim"))
    left.append(" " * max(width - left.cell_len - right.cell_len, 1))
    return _one_line(left.append_text(right))


def _bar(openings: Openings, glyphs: Glyphs, width: int) -> Text:
    """All slots: used, free for anybody, and those that are kept back."""
    kept = openings.for_superusers - openings.for_anybody
    cells = _shared_out((openings.used, openings.for_anybody, kept), min(width, 80))
    styles = ("bold red" if openings.full else "bold blue", "dim", "yellow")
    signs = (glyphs.used, glyphs.free, glyphs.kept)
    return Text.assemble(*((sign * n, style) for sign, n, style in zip(signs, cells, styles, strict=True)))


def _shared_out(parts: Sequence[int], cells: int) -> list[int]:
    """So many cells in proportion, and at least one for what is there at all."""
    total = max(sum(parts), 1)
    shares = [max(round(part * cells / total), 1 if part else 0) for part in parts]
    shares[shares.index(max(shares))] += cells - sum(shares)
    return shares


def _states(counted: Census) -> Text:
    said = [f"{count} {state}" for state, count in counted.states.items()]
    said += [f"{counted.uncounted} only counted"] if counted.uncounted else []
    said += [f"{counted.unreadable} that cannot be read"] if counted.unreadable else []
    walsenders = "walsender" if counted.walsenders == 1 else "walsenders"
    said += [f"beside them {counted.walsenders} {walsenders}"] if counted.walsenders else []
    used = counted.openings.used
    head = f"{used} session{'' if used == 1 else 's'}: "
    return Text.assemble((head, "bold"), plain(", ".join(said)))


def _table(
    ranking: Ranking, trends: Sequence[Values], titles: tuple[str, str], glyphs: Glyphs, width: int
) -> RenderableType:
    title, nameless = titles
    states = ("active", "idle", "in tx") if width >= _ROOM_FOR_STATES else ()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=18 if states else 8, max_width=34)
    for column in ("sessions", *states, "oldest idle"):
        table.add_column(column, justify="right", no_wrap=True)
    shows_trend = any(any(values[:-1]) for values in trends)
    if shows_trend:
        table.add_column("last 10 min", no_wrap=True)
    top = max((max((value or 0 for value in values), default=0) for values in trends), default=0)
    for number, group in enumerate(ranking.groups):
        row = [
            Text(plain(group.name) if group.name else nameless, style="bold"),
            Text(str(group.count), style="bold"),
            *(_counts(group) if states else ()),
            Text(ago(group.oldest_idle_s)),
        ]
        if shows_trend:
            row.append(Text(sparkline(trends[number], glyphs, cells=_TREND, top=top), style="cyan"))
        table.add_row(*row)
    if ranking.more_groups:
        table.add_row(
            Text(f"{ranking.more_groups} more", style="dim"), Text(str(ranking.more_sessions), style="dim")
        )
    return table


def _counts(group: Group) -> tuple[Text, Text, Text]:
    in_transaction = group.states.get(IN_TRANSACTION, 0) + group.states.get(ABORTED, 0)
    return (
        _count(group.states.get(ACTIVE, 0)),
        _count(group.states.get(IDLE, 0)),
        _count(in_transaction, style="yellow"),
    )


def _count(number: int, *, style: str = "") -> Text:
    return Text(str(number), style=style) if number else Text("·", style="dim")


def _transactions(counted: Census) -> Iterator[Text]:
    if not counted.transactions:
        return
    yield Text()
    yield Text("open transactions", style="dim")
    for each in counted.transactions:
        line = Text.assemble((f"pid {each.pid} ", "bold"), plain(whose(each.session)))
        line.append(f": {plain(_waits(each))}")
        for said, style in ((waiting_words(each), "bold red"), (horizon(each), "yellow")):
            if said:
                line.append("; ").append(plain(said), style=style)
        yield line
    if counted.more_transactions:
        yield Text(f"and {counted.more_transactions} more", style="dim")


def _waits(each: Transaction) -> str:
    """What it does and for how long; of one that has failed the server does not say how long it is open."""
    since = f" for {ago(each.state_s)}" if each.state_s is not None else ""
    opened = f", open for {ago(each.open_s)}" if each.open_s is not None else ""
    return f"{each.state or 'state hidden'}{since}{opened}"


def _notes(counted: Census) -> Iterator[Text]:
    said = [pooler_words(each) for each in counted.poolers]
    if said:
        yield Text()
        yield from (Text(plain(line)) for line in said)


def _reaper(seen: Seen, overview: Overview, glyphs: Glyphs) -> Iterator[RenderableType]:
    if seen.usage:
        yield Text()
    if seen.why:
        yield Text(plain(f"The server itself was not asked: {seen.why}"), style="dim")
    yield from (Text(plain(line), style="dim") for line in _by(overview, seen.url or ""))
    if not seen.usage and not overview.shown:
        yield Text()
        yield _fleet(overview, glyphs)
        yield from (Text(plain(f"{line.name}: {line.why}")) for line in overview.servers if line.why)


def _by(overview: Overview, url: str) -> Iterator[str]:
    """Who told it, and what it is about to do."""
    shown = overview.shown
    seen = f", seen {shown.seen_s_ago:g}s ago" if shown and shown.seen_s_ago is not None else ""
    harmless = ", in a dry run" if overview.dry_run else ""
    running = f"it has run for {ago(overview.up_s)}{harmless}"
    yield f"Told by the reaper {overview.version} at {url}{seen}; {running}."
    for policy in shown.policies if shown else ():
        if policy.matching:
            held = ", and its brake holds" if policy.braked else ""
            yield f"Its policy {policy.name} ({policy.mode}) matches {policy.matching} of these now{held}."


def _fleet(overview: Overview, glyphs: Glyphs) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for column in ("server", "state", "slots used", "last 10 min"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for line in overview.servers:
        used = "" if line.used is None else f"{line.used} of {line.usable}"
        trend = sparkline(line.trend, glyphs, cells=_TREND, top=line.total or 0)
        table.add_row(*map(Text, (plain(line.name), plain(line.state), used, trend)))
    return table


def sparkline(values: Values, glyphs: Glyphs, *, cells: int, top: int) -> str:
    """The values as so many signs, the latest last; a blank where nobody has looked."""
    size = max(len(values) // cells, 1)
    drawn = [_highest(values[start : start + size]) for start in range(0, len(values), size)][-cells:]
    steps = len(glyphs.rising) - 1
    return "".join(
        " " if value is None else glyphs.rising[min(round(value * steps / max(top, 1)), steps)]
        for value in drawn
    )


def _highest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _sentence(said: str) -> Text:
    return Text(said)


def _one_line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
