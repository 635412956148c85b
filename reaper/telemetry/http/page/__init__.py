"""The status page: one template without scripts, its style and its icon, and the numbers of its figures."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Final, NamedTuple
from urllib.parse import urlencode

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from reaper.insight.usage import texts
from reaper.insight.usage.census import Census
from reaper.insight.usage.trend import Values
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION
from reaper.policy.text import percent, printable
from reaper.telemetry.http.views import Overview, ServerLine, ServerView

_REFRESH_SECONDS: Final = 10
_STYLES: Final = {ACTIVE: "active", IDLE: "idle", IN_TRANSACTION: "open", ABORTED: "aborted"}
_LABELS: Final = {
    "active": "active",
    "open": "idle in transaction",
    "aborted": "idle in transaction (aborted)",
    "idle": "idle",
    "other": "other or hidden",
    "free": "free",
    "kept": "reserved",
}
"""Each CSS class with its label, in the order in which they are drawn."""
_MAX_SQUARES: Final = 400
_SIZES: Final = ((130, "few"), (260, "some"))


class Part(NamedTuple):
    """The slots or sessions of one state."""

    style: str
    label: str
    amount: int


class Bar(NamedTuple):
    """A part of a bar, in percent."""

    style: str
    start: str
    width: str


class SlotGrid(NamedTuple):
    """All slots of a server as squares."""

    squares: list[str]
    """The CSS class of each square."""
    size: str
    slots_per_square: int
    parts: list[Part]


class Curve(NamedTuple):
    """A trend as SVG paths."""

    line: str
    area: str


def file_text(name: str) -> str:
    """The text of a file of this package."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def render(seen: Overview, *, paused: bool) -> bytes:
    """The page as HTML."""
    many = len(seen.servers) + seen.more_servers > 1
    page = _template().render(
        seen=seen,
        paused=paused,
        many=many,
        refresh_seconds=_REFRESH_SECONDS,
        link=lambda server, pause: _link(server if many else None, pause=pause),
    )
    return page.encode(errors="backslashreplace")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(file_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "plain": printable,
        "ago": texts.ago,
        "share": percent,
        "openings_words": lambda openings: tuple(texts.openings_words(openings)),
        "waiting_words": texts.waiting_words,
        "horizon": texts.horizon,
        "pooler_words": texts.pooler_words,
        "counts": _counts,
        "clock": lambda at: at[11:19] if at else "",
        "states": lambda servers: _counts(Counter(server.state for server in servers)),
    }
    environment.globals |= {"slot_grid": slot_grid, "bars": bars, "curve": curve, "percent": _percent}
    return environment.get_template("page.html")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {printable(what)}" for what, count in counts.items())


def _percent(part: int, whole: int) -> str:
    return f"{100 * min(part / max(whole, 1), 1):.1f}"


def _link(server: ServerView | ServerLine | None, *, pause: bool) -> str:
    return urlencode({**({"server": server.name} if server else {}), **({"pause": 1} if pause else {})})


def _parts(states: Mapping[str, int]) -> list[Part]:
    counts = dict.fromkeys(_LABELS, 0)
    for state, count in states.items():
        counts[_STYLES.get(state, "other")] += count
    return [Part(style, _LABELS[style], count) for style, count in counts.items() if count]


def bars(states: Mapping[str, int], whole: int) -> list[Bar]:
    """The states of a group as parts of a bar; the whole bar is `whole` sessions."""
    drawn: list[Bar] = []
    start = 0.0
    for part in _parts(states):
        width = 100 * part.amount / max(whole, 1)
        drawn.append(Bar(part.style, f"{start:.2f}", f"{width:.2f}"))
        start += width
    return drawn


def slot_grid(counted: Census) -> SlotGrid:
    """Every slot of the server, those in use first; on a large server a square stands for several slots."""
    openings = counted.openings
    parts = _parts(counted.states)
    hidden = openings.used - sum(part.amount for part in parts)
    reserved = openings.for_superusers - openings.for_anybody
    parts += [
        Part("other", "only counted", max(hidden, 0)),
        Part("free", _LABELS["free"], openings.for_anybody),
        Part("kept", _LABELS["kept"], reserved),
    ]
    parts = [part for part in parts if part.amount]
    each = -(-sum(part.amount for part in parts) // _MAX_SQUARES) or 1
    squares = [part.style for part in parts for _ in range(max(round(part.amount / each), 1))]
    size = next((size for most, size in _SIZES if len(squares) <= most), "many")
    return SlotGrid(squares, size, each, parts)


def curve(values: Values, *, top: int, width: int = 120, height: int = 24) -> Curve:
    """The counts over time, with gaps where no snapshot was taken."""
    step = width / max(len(values) - 1, 1)
    runs = [
        [(number * step, height - 1 - (height - 2) * min(value / max(top, 1), 1)) for number, value in run]
        for run in _runs(values)
    ]
    # A single value is drawn as a short line; a path of one point would be invisible.
    runs = [run if len(run) > 1 else [(max(run[0][0] - step, 0), run[0][1]), run[0]] for run in runs]
    line = " ".join(f"M{_points(run)}" for run in runs)
    area = " ".join(f"M{run[0][0]:.1f} {height}L{_points(run)}L{run[-1][0]:.1f} {height}Z" for run in runs)
    return Curve(line, area)


def _runs(values: Values) -> Iterator[list[tuple[int, int]]]:
    for _, run in groupby(enumerate(values), key=lambda each: each[1] is None):
        if points := [(number, value) for number, value in run if value is not None]:
            yield points


def _points(run: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
