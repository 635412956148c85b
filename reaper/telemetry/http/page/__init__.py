"""The status page: a template, its style and its icon; loaded with the first visitor, for it costs memory."""

import ctypes
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Final
from urllib.parse import urlencode

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template

from reaper.insight.usage import texts as phrases
from reaper.insight.usage.census import Openings
from reaper.policy.text import plain
from reaper.telemetry.http import drawing
from reaper.telemetry.http.views import Overview, ServerLine, ServerView


def give_back() -> None:
    """Return to the host what is free: the C library would keep it for a next time that does not come."""
    with suppress(AttributeError):  # not the GNU one
        ctypes.CDLL(None).malloc_trim(0)


EVERY_SECONDS: Final = 10


def text(name: str) -> str:
    """One of the files beside this one."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def rendered(seen: Overview, *, paused: bool) -> bytes:
    """The page."""
    many = len(seen.servers) + seen.more_servers > 1
    page = _template().render(
        seen=seen,
        paused=paused,
        many=many,
        every=EVERY_SECONDS,
        link=lambda of, pause: _link(of if many else None, pause=pause),
    )
    return page.encode(errors="backslashreplace")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(text), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "harmless": plain,
        "ago": phrases.ago,
        "openings_words": lambda openings: tuple(phrases.openings_words(openings)),
        "waiting_words": phrases.waiting_words,
        "horizon": phrases.horizon,
        "pooler_words": phrases.pooler_words,
        "told": _told,
        "counted": _told,
        "clock": _clock,
        "states": _states,
    }
    environment.globals |= {
        "board": drawing.board,
        "bars": drawing.bars,
        "line": drawing.line,
        "ceiling": _ceiling,
        "percent": _percent,
    }
    template = environment.get_template("page.html")
    give_back()
    return template


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {plain(what)}" for what, count in counts.items())


def _states(servers: Iterable[ServerLine]) -> str:
    return _told(Counter(server.state for server in servers))


def _clock(at: str | None) -> str:
    return at[11:19] if at else ""


def _ceiling(openings: Openings) -> str:
    return f"{119 - 118 * min(openings.usable / max(openings.total, 1), 1):.1f}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * min(part / max(whole, 1), 1):.1f}"


def _link(of: ServerView | ServerLine | None, *, pause: bool) -> str:
    return urlencode({**({"server": of.name} if of else {}), **({"pause": 1} if pause else {})})
