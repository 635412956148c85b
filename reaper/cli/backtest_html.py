"""The report of a backtest: one HTML page with interactive charts, which loads nothing from elsewhere."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reaper.cli import backtest_result as words
from reaper.policy.text import counted, percent, printable

_PAGES: Final = Path(__file__).parent / "pages"
_MAX_APPLICATIONS: Final = 20
_COLOURS: Final = (*("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#8a94a3"),)
_USED, _WOULD, _LIMIT = "#8a94a3", "#0072b2", "#d55e00"


class MissingPlotly(Exception):
    """The plotting library is not installed."""


def report(documents: Sequence[words.Document]) -> str:
    """Return the page."""
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 (only a report needs it)
    except ImportError:
        message = "a report needs a plotting library: pip install 'pg-reaper[report]'"
        raise MissingPlotly(message) from None
    style = (_PAGES / "backtest.css").read_text(encoding="utf-8")
    scripts = [get_plotlyjs(), (_PAGES / "backtest.js").read_text(encoding="utf-8")]
    pages = Environment(
        loader=FileSystemLoader(_PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names from clients are shown as one harmless line, and then escaped.
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    pages.globals |= {"words": words, "percent": percent, "counted": counted}
    return pages.get_template("backtest.html").render(
        style=Markup(style),  # noqa: S704 (a file of ours)
        scripts=[Markup(script) for script in scripts],  # noqa: S704 (the library, and a file of ours)
        policy=_security_policy(scripts),
        servers=[{**found, "sides": [_side(found, side) for side in found["sides"]]} for found in documents],
    )


def _security_policy(scripts: Sequence[str]) -> str:
    """Return a Content-Security-Policy that runs these scripts alone, and loads nothing."""
    digests = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # The library styles its drawings from its script; a style cannot run or load anything under this policy.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _side(found: words.Document, side: words.Document) -> Mapping[str, Any]:
    usable = found["slots"] and found["slots"]["usable"]
    names = [row["policy"] for row in side["policies"] if row["taken"]]
    rows = [row for row in side["applications"] if row["peak"] is not None][:_MAX_APPLICATIONS]
    return {
        **side,
        "shown": rows,
        "largest": max((row["peak"] for row in rows), default=1) or 1,
        "charts": _charts(side["course"], usable, names),
    }


def _charts(timeline: words.Document, usable: int | None, policies: Sequence[str]) -> Mapping[str, Any]:
    """Return the figures of Plotly; none if the history lies outside the calendar."""
    try:
        at, steps = _all_steps(timeline)
    except (ValueError, OverflowError):
        return {}
    taken = [
        {
            "type": "bar",
            # Plotly reads tags in names.
            "name": html.escape(printable(policy)),
            "x": at,
            "y": [step["taken"].get(policy, 0) if step else None for step in steps],
            "marker": {"color": _COLOURS[min(number, len(_COLOURS) - 1)]},
        }
        for number, policy in enumerate(policies)
    ]
    slots = [
        _line("as it was", at, [step["used"] if step else None for step in steps], color=_USED),
        _line("as it would have been", at, [step["would"] if step else None for step in steps], color=_WOULD),
    ]
    if usable:
        limit = _line("usable by ordinary roles", [at[0], at[-1]], [usable, usable], color=_LIMIT)
        slots.append({**limit, "line": {**limit["line"], "dash": "dash"}})
    return {"Slots in use (UTC)": slots, **({"Terminations (UTC)": taken} if taken else {})}


def _line(name: str, x: Sequence[str], y: Sequence[int | None], *, color: str) -> Any:  # noqa: ANN401 (a part of Plotly's JSON)
    line = {"color": color, "shape": "hv", "width": 1.5}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _all_steps(timeline: words.Document) -> tuple[list[str], list[Mapping[str, Any] | None]]:
    """Return every step of the timeline, None where the history has a gap."""
    width = timedelta(seconds=timeline["step_seconds"])
    known = {datetime.fromisoformat(step["at"]): step for step in timeline["steps"]}
    first, last = min(known), max(known)
    at = [first + number * width for number in range(round((last - first) / width) + 1)]
    return [moment.isoformat() for moment in at], [known.get(moment) for moment in at]
