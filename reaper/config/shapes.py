"""Plain data to models, as far as it goes."""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar, cast

from reaper.config.document import Document
from reaper.config.mistakes import Finding
from reaper.config.models import File, Head, Policy, Server, ServerFile
from reaper.config.parts import Part, Refusal, Unread, Why
from reaper.config.refusals import finding
from reaper.config.scalars import Kind, Plain

P = TypeVar("P", bound=Part)

_STAND_INS: Final[Mapping[str, object]] = {"version": Plain("1", Kind.NUMBER), "name": "unnamed"}
_ROUNDS: Final = 8


class Shape(NamedTuple):
    """What could be read of a policy file, and what could not."""

    head: Head | None
    policies: dict[int, Policy]
    """The policies that can be judged, by their number in the file."""
    findings: list[Finding]


def shape(document: Document) -> Shape:
    """Read the whole file into models; where it is wrong, read what is left of it."""
    data = document.data
    try:
        file = File.read(data)
    except Unread as error:
        findings = [finding(one, document) for one in error.refusals]
        return Shape(*_what_is_left(data), findings)
    return Shape(file, dict(enumerate(file.policies)), [])


def servers(document: Document) -> tuple[dict[int, Server], list[Finding]]:
    """Read a list of servers into models, by their number in it, as far as it goes."""
    data = document.data
    try:
        return dict(enumerate(ServerFile.read(data).servers)), []
    except Unread as error:
        findings = [finding(one, document) for one in error.refusals]
        return _each(Server, data, "servers"), findings


def _what_is_left(data: object) -> tuple[Head | None, dict[int, Policy]]:
    if not isinstance(data, dict):
        return None, {}
    policies = _each(Policy, data, "policies")
    data.pop("policies", None)
    return _mended(Head, data), policies


def _each(model: type[P], data: object, key: str) -> dict[int, P]:
    items = _at(data, key)
    mended = (_mended(model, item) for item in items) if isinstance(items, list) else ()
    return {number: one for number, one in enumerate(mended) if one}


def _mended(model: type[P], data: object) -> P | None:
    """The model without the keys that are wrong, so that the rest can be judged at the same time."""
    for _ in range(_ROUNDS):
        try:
            return model.read(data)
        except Unread as error:
            for one in error.refusals:
                if not _cut(data, one):
                    return None
    return None


def _cut(data: object, refusal: Refusal) -> bool:
    """Take out the innermost key that holds the mistake; false when nothing would be left."""
    path = refusal.path
    keys = [n for n, step in enumerate(path) if isinstance(step, str)]
    if refusal.why is Why.MISSING:
        missing = str(path[-1])
        if missing in _STAND_INS and len(path) == 1:
            cast("dict[str, object]", data)[missing] = _STAND_INS[missing]
            return True
        keys = keys[:-1]
    if not keys:
        return False
    holder = data
    for step in path[: keys[-1]]:
        holder = _at(holder, step)
    if isinstance(holder, dict):
        holder.pop(path[keys[-1]], None)
    return True


def _at(holder: object, step: str | int) -> object:
    if isinstance(holder, dict):
        return holder.get(step)
    return holder[step] if isinstance(holder, list) and isinstance(step, int) else None
