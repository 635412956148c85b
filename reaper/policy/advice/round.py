"""Numbers as a person would set them: round, and rather a little too large."""

import math
from typing import Final

from reaper.policy.spans import SECOND, Span

_MINUTE: Final = 60 * SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_STEPS: Final = (
    *(part * SECOND // 10 for part in (1, 2, 5)),
    *(count * SECOND for count in (1, 2, 5, 10, 15, 30)),
    *(count * _MINUTE for count in (1, 2, 5, 10, 15, 30)),
    *(count * _HOUR for count in (1, 2, 4, 8, 12)),
    *(count * _DAY for count in (1, 2, 7, 14)),
)
_SETTING_UNITS: Final = {"d": _DAY, "h": _HOUR, "min": _MINUTE, "s": SECOND, "ms": SECOND // 1_000}
_TENS: Final = 20


def round_span(span: float) -> Span | None:
    """The next round span that is no shorter; nothing beyond two weeks, which is no limit any more."""
    return next((Span(step) for step in _STEPS if step >= span), None)


def setting(span: Span) -> str:
    """A span as a setting of the server spells it: `500ms`, `5min`, `2h`, `1d`."""
    name, unit = next((name, unit) for name, unit in _SETTING_UNITS.items() if span % unit == 0)
    return f"{span // unit}{name}"


def headroom(count: int) -> int:
    """Half as many again and at least five more, on a round number."""
    enough = max(math.ceil(count * 1.5), count + 5)
    step = 5 if enough <= 10 * _TENS else 10 * _TENS // 4
    return math.ceil(enough / step) * step
