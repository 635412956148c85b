"""A backtest as one page: charts and tables, nothing from anywhere else, nothing that runs."""

import base64
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reaper.cli import backtest_result as words
from reaper.policy.text import plain

_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
_COLOURS: Final = {
    "#010101": "was",
    "#020202": "would",
    "#030303": "ink",
    "#040404": "grid",
    "#050505": "limit",
    **{f"#0600{number:02x}": f"policy-{number}" for number in range(8)},
}
"""What stands in a drawing until its page gives it a colour."""
_COLOUR: Final = {name: code for code, name in _COLOURS.items()}
KINDS: Final = 8
"""So many policies have a colour of their own; those beyond share the last one."""

_SIZES: Final = {"wide": (9.6, 2.7), "narrow": (4.0, 2.5)}
_MOST_BARS: Final = 96
_DECLARATION: Final = re.compile(r"\s*([a-z-]+)\s*:\s*([^;]+)")
_ATTRIBUTES: Final = {
    *("fill", "stroke", "stroke-width", "stroke-linejoin", "stroke-linecap", "stroke-dasharray"),
    *("stroke-dashoffset", "stroke-miterlimit", "opacity", "fill-opacity", "stroke-opacity"),
}


class NoPlotting(Exception):
    """The plotting library is not installed."""


def slots_chart(course: Mapping[str, Any], *, usable: int | None) -> Mapping[str, str]:
    """Slots over time, as it was and as it would have been."""
    at, width, steps = _steps(course)

    def draw(axes: Any) -> None:  # noqa: ANN401 (the plotting library names few types)
        was, would = ([step[key] if step else None for step in steps] for key in ("used", "would"))
        axes.fill_between(at, _numbers(was), step="post", color=_COLOUR["was"], linewidth=0, alpha=0.35)
        axes.step(at, _numbers(was), where="post", color=_COLOUR["was"], linewidth=1.2)
        axes.step(at, _numbers(would), where="post", color=_COLOUR["would"], linewidth=1.8)
        if usable:
            axes.axhline(usable, color=_COLOUR["limit"], linewidth=1.2, dashes=(4, 3))
        axes.set_ylim(0, max([usable or 1, *(one for one in was if one)]) * 1.08)
        axes.set_xlim(at[0], at[-1] + width)

    return _drawn(draw, "slots")


def taken_chart(course: Mapping[str, Any], policies: Sequence[str]) -> Mapping[str, str]:
    """Terminations over time, policy upon policy."""
    at, width, steps = _in_bars(*_steps(course))

    def draw(axes: Any) -> None:  # noqa: ANN401 (as above)
        below = [0] * len(steps)
        for number, policy in enumerate(policies):
            counts = [step[policy] for step in steps]
            colour = _COLOUR[f"policy-{min(number, KINDS - 1)}"]
            axes.bar(at, counts, width=width, bottom=below, align="edge", color=colour, linewidth=0)
            below = [one + other for one, other in zip(below, counts, strict=True)]
        axes.set_ylim(0, max(4, *below) * 1.08)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(at[0], at[-1] + width)

    return _drawn(draw, "taken")


def _steps(course: Mapping[str, Any]) -> tuple[list[datetime], timedelta, list[Mapping[str, Any] | None]]:
    """Every step of the course, also those of which nothing is known."""
    width = timedelta(seconds=course["step_seconds"])
    known = {datetime.fromisoformat(step["at"]): step for step in course["steps"]}
    first, last = min(known), max(known)
    count = round((last - first) / width) + 1
    at = [first + number * width for number in range(count)]
    return at, width, [known.get(moment) for moment in at]


def _in_bars(
    at: list[datetime], width: timedelta, steps: list[Mapping[str, Any] | None]
) -> tuple[list[datetime], timedelta, list[Counter[str]]]:
    """Fewer and wider steps: what is counted in them would not be seen in narrow ones."""
    many = -(-len(at) // _MOST_BARS)
    bars = []
    for first in range(0, len(at), many):
        bar = Counter[str]()
        for step in steps[first : first + many]:
            bar.update(step["taken"] if step else {})
        bars.append(bar)
    return at[::many], many * width, bars


def _numbers(values: Sequence[int | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _drawn(draw: Any, name: str) -> Mapping[str, str]:  # noqa: ANN401 (as above)
    """One drawing for a desk and one for a phone: letters keep their size."""
    try:
        from matplotlib import dates  # noqa: PLC0415 (only a report needs it)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        told = "a report needs a plotting library: pip install 'pg-reaper[report]'"
        raise NoPlotting(told) from None
    found = {}
    for size, inches in _SIZES.items():
        with _manner(f"{name}-{size}"):
            figure = Figure(figsize=inches, layout="tight")
            axes = figure.add_subplot()
            draw(axes)
            _date(axes, dates, ticks=9 if size == "wide" else 5)
            axes.grid(axis="y", color=_COLOUR["grid"], linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            drawing = io.BytesIO()
            figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        found[size] = _bare(drawing.getvalue(), size)
    return found


def _date(axes: Any, dates: Any, *, ticks: int) -> None:  # noqa: ANN401 (as above)
    locator = dates.AutoDateLocator(maxticks=ticks)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


@contextmanager
def _manner(salt: str) -> Iterator[None]:
    from matplotlib import rc_context  # noqa: PLC0415 (as above)

    ink = _COLOUR["ink"]
    with rc_context(
        {
            "svg.hashsalt": salt,
            "svg.fonttype": "path",
            "font.size": 9,
            "text.color": ink,
            "axes.edgecolor": ink,
            "axes.labelcolor": ink,
            "xtick.color": ink,
            "ytick.color": ink,
            "timezone": "UTC",
        }
    ):
        yield


def _bare(drawing: bytes, size: str) -> str:
    """The drawing without what a strict policy of a page refuses: styles become attributes and classes."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(drawing)  # noqa: S314 (made a moment ago, by ourselves)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:
                parent.remove(child)
    for element in root.iter():
        _dress(element)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("class", f"chart {size}")
    root.set("aria-hidden", "true")
    return ET.tostring(root, encoding="unicode")


def _dress(element: ET.Element) -> None:
    classes = []
    for name, value in _DECLARATION.findall(element.attrib.pop("style", "")):
        if name in _ATTRIBUTES:
            element.set(name, value.strip())
    for name in ("fill", "stroke"):
        colour = _COLOURS.get(element.get(name, ""))
        if colour:
            del element.attrib[name]
            classes.append(f"{name}-{colour}")
    if classes:
        element.set("class", " ".join(classes))


__all__ = ["NoPlotting", "report"]

_HERE: Final = Path(__file__).parent / "pages"
_MOST_APPLICATIONS: Final = 20


def report(accounts: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    style = (_HERE / "backtest.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    pages = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever a client wrote is shown as one harmless line, and then escaped.
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
    )
    pages.globals |= {"words": words, "percent": words.percent, "counted": words.counted}
    page = pages.get_template("backtest.html")
    return page.render(
        style=Markup(style),  # noqa: S704 (a file of ours)
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        servers=[_server(found) for found in accounts],
    )


def _server(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**found, "sides": [_side(found, side) for side in found["sides"]]}


def _side(found: Mapping[str, Any], side: Mapping[str, Any]) -> Mapping[str, Any]:
    usable = found["slots"] and found["slots"]["usable"]
    names = [row["policy"] for row in side["policies"] if row["taken"]]
    kinds = {name: min(number, KINDS - 1) for number, name in enumerate(names)}
    rows = [row for row in side["applications"] if row["peak"] is not None][:_MOST_APPLICATIONS]
    return {
        **side,
        "policies": [{**row, "kind": kinds.get(row["policy"])} for row in side["policies"]],
        "shown": rows,
        "largest": max((row["peak"] for row in rows), default=1) or 1,
        "slots_chart": _marked(lambda: slots_chart(side["course"], usable=usable)),
        "taken_chart": _marked(lambda: taken_chart(side["course"], names)) if names else None,
    }


def _marked(draw: Any) -> Mapping[str, Markup] | None:  # noqa: ANN401 (a function)
    """A drawing of ours; none where the moments lie outside the calendar."""
    try:
        return {size: Markup(drawing) for size, drawing in draw().items()}  # noqa: S704 (made by ourselves)
    except (ValueError, OverflowError):
        return None
