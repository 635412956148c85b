"""The figures of the status page as SVG's own numbers: slots as squares, shares as bars, minutes as lines."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from reaper.insight.usage.census import Census
from reaper.insight.usage.trend import Values
from reaper.policy.session import ABORTED, ACTIVE, IDLE, IN_TRANSACTION

_LOOKS: Final = {ACTIVE: "active", IDLE: "idle", IN_TRANSACTION: "open", ABORTED: "aborted"}
_ORDER: Final = ("active", "open", "aborted", "idle", "other", "free", "kept")
_TOLD: Final = {
    "active": "active",
    "open": "idle in transaction",
    "aborted": "idle in transaction (aborted)",
    "idle": "idle",
    "other": "other or hidden",
    "free": "free",
    "kept": "kept back",
}
_MOST_SQUARES: Final = 400
_SIZES: Final = ((130, "few"), (260, "some"))


class Share(NamedTuple):
    """A part of a whole: what it is, how it looks, how much it is."""

    look: str
    told: str
    slots: int


class Bar(NamedTuple):
    """A part of a bar, in percent."""

    look: str
    start: str
    width: str


class Board(NamedTuple):
    """All slots of a server, each by how it looks."""

    looks: list[str]
    size: str
    each: int
    """So many slots are one square."""
    shares: list[Share]


class Line(NamedTuple):
    """Minutes as SVG paths."""

    line: str
    area: str


def shares(states: Mapping[str, int]) -> list[Share]:
    """What sessions do, in the order in which it is drawn."""
    counts = dict.fromkeys(_ORDER, 0)
    for state, count in states.items():
        counts[_LOOKS.get(state, "other")] += count
    return [Share(look, _TOLD[look], count) for look, count in counts.items() if count]


def bars(states: Mapping[str, int], whole: int) -> list[Bar]:
    """The states of a group as parts of a bar; the whole bar is `whole` sessions."""
    drawn: list[Bar] = []
    start = 0.0
    for share in shares(states):
        width = 100 * share.slots / max(whole, 1)
        drawn.append(Bar(share.look, f"{start:.2f}", f"{width:.2f}"))
        start += width
    return drawn


def board(counted: Census) -> Board:
    """Every slot of the server, those in use first; many slots are one square when there are very many."""
    openings = counted.openings
    parts = shares(counted.states)
    hidden = openings.used - sum(share.slots for share in parts)
    if hidden > 0:
        parts = [*parts, Share("other", "only counted", hidden)]
    kept = openings.for_superusers - openings.for_anybody
    parts += [Share("free", _TOLD["free"], openings.for_anybody), Share("kept", _TOLD["kept"], kept)]
    parts = [share for share in parts if share.slots]
    each = -(-sum(share.slots for share in parts) // _MOST_SQUARES) or 1
    looks = [share.look for share in parts for _ in range(max(round(share.slots / each), 1))]
    size = next((size for most, size in _SIZES if len(looks) <= most), "many")
    return Board(looks, size, each, parts)


def line(values: Values, *, top: int, width: int = 120, height: int = 24) -> Line:
    """The counts over time, with gaps where no snapshot was taken."""
    step = width / max(len(values) - 1, 1)
    runs = [
        [(number * step, height - 1 - (height - 2) * min(value / max(top, 1), 1)) for number, value in run]
        for run in _runs(values)
    ]
    # A single look is a short line, and not nothing.
    runs = [run if len(run) > 1 else [(max(run[0][0] - step, 0), run[0][1]), run[0]] for run in runs]
    drawn = " ".join(f"M{_points(run)}" for run in runs)
    under = " ".join(f"M{run[0][0]:.1f} {height}L{_points(run)}L{run[-1][0]:.1f} {height}Z" for run in runs)
    return Line(drawn, under)


def _runs(values: Values) -> Iterator[list[tuple[int, int]]]:
    run: list[tuple[int, int]] = []
    for number, value in enumerate(values):
        if value is not None:
            run.append((number, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _points(run: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
