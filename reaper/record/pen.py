"""One event, one line: structlog renders it, ASCII and JSON whatever a client put into its name."""

import json
from collections.abc import Mapping, MutableMapping
from itertools import count
from socket import gethostname
from typing import Any, Final

import structlog

from reaper import __version__
from reaper.policy.spans import from_datetime, isoformat
from reaper.record.events import SCHEMA, Event

# ensure_ascii: no name can break a line, move a cursor or turn the reading direction.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, default=repr)


def _rendered(fields: Mapping[str, object], **_: object) -> str:
    return _ENCODER.encode(fields)


class Pen:
    """Renders the events of one life of the writer, numbered."""

    def __init__(self, *, run: str) -> None:
        self._run = run
        self._numbers = count(1)
        self._log = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[self._stamp, structlog.processors.JSONRenderer(serializer=_rendered)],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=False,
            version=__version__,
            host=gethostname(),
        ).bind()

    def line(self, event: Event) -> bytes:
        """The event as one whole line."""
        time = isoformat(from_datetime(event.time))
        text: str = self._log.msg(event.name, **{**event.fields, "time": time})
        return text.encode("ascii") + b"\n"

    def _stamp(self, _: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        first = {"schema": SCHEMA, "event": fields.pop("event"), "time": fields.pop("time")}
        return {**first, "seq": next(self._numbers), "run": self._run, **fields}
