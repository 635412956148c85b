"""A backtest as one page: charts and tables, nothing from anywhere else, nothing that runs."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reaper.cli import backtest_words as words
from reaper.cli.charts import KINDS, NoPlotting, slots_chart, taken_chart
from reaper.telemetry.plain import plain

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
