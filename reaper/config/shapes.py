"""Plain data to models, and each refusal of pydantic to a sentence about the place it means."""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reaper.config import models
from reaper.config.document import Document
from reaper.config.mistakes import LONGEST_QUOTE, Finding, Path, quoted
from reaper.config.models import MOST, File, Head, Part, Policy
from reaper.config.scalars import Kind, Plain
from reaper.config.wording import OURS, did_you_mean, shown

P = TypeVar("P", bound=Part)

_EXAMPLES: Final[Mapping[str, str]] = {
    "": "version: 1, and policies: below it",
    "version": "1",
    "servers": "a list such as [{name: orders, dsn: host=db-1}]",
    "protect": '{role: ["*_migrator"]}',
    "policies": "a list of maps, each with its name and its match",
    "name": "orders",
    "match": "{state: [idle], idle_for: 10m}",
    "allowlist": "{application: [metabase]}",
    "role": '["app_*"]',
    "database": "[shop]",
    "application": '["web-*"]',
    "client": "[10.2.0.0/16]",
    "state": "[idle]",
    "despite": "[listeners]",
    "during": "[Mon-Fri 20:00-06:00 Europe/Berlin]",
    "when": "{connections_used: 80%}",
    "connections_used": "80%",
    "keep": "{newest: 2, per: [application]}",
    "newest": "2",
    "cap": "{most: 20, per: [application]}",
    "most": "20",
    "per": "[application]",
    "pace": "{per_cycle: 10}",
    "per_cycle": "10",
    "brake": "{share: 50%, above: 5}, or off",
}

_ITEMS: Final[Mapping[str, str]] = {
    "servers": "{name: orders, dsn: host=db-1}",
    "policies": "a map with a name and a match",
}
_MODELS: Final[Mapping[str, type[Part]]] = {
    "": File,
    "servers": models.Server,
    "protect": models.Selector,
    "policies": Policy,
    "match": models.Match,
    "allowlist": models.Selector,
    "when": models.When,
    "keep": models.Keep,
    "cap": models.Cap,
    "pace": models.Pace,
    "brake": models.Brake,
}
"""Which model reads the map under a key; no key is the top of the file."""

_STAND_INS: Final[Mapping[str, object]] = {"version": Plain("1", Kind.NUMBER), "name": "unnamed"}
_ROUNDS: Final = 8


class Shape(NamedTuple):
    """What could be read of a file, and what could not."""

    head: Head | None
    policies: dict[int, Policy]
    """The policies that can be judged, by their number in the file."""
    findings: list[Finding]


def shape(document: Document) -> Shape:
    """Read the whole file into models; where it is wrong, read what is left of it."""
    data = document.data
    try:
        file = File.model_validate(data)
    except ValidationError as error:
        findings = [_finding(one, document) for one in error.errors(include_url=False)]
        return Shape(*_what_is_left(data), findings)
    return Shape(file, dict(enumerate(file.policies)), [])


def _what_is_left(data: object) -> tuple[Head | None, dict[int, Policy]]:
    if not isinstance(data, dict):
        return None, {}
    items = data.pop("policies", None)
    mended = (_mended(Policy, item) for item in items) if isinstance(items, list) else ()
    policies = {number: policy for number, policy in enumerate(mended) if policy}
    return _mended(Head, data), policies


def _mended(model: type[P], data: object) -> P | None:
    """The model without the keys that are wrong, so that the rest can be judged at the same time."""
    for _ in range(_ROUNDS):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                if not _cut(data, one):
                    return None
    return None


def _cut(data: object, error: ErrorDetails) -> bool:
    """Take out the innermost key that holds the mistake; false when nothing would be left."""
    keys = [n for n, step in enumerate(error["loc"]) if isinstance(step, str)]
    if error["type"] == "missing":
        missing = str(error["loc"][-1])
        if missing in _STAND_INS and len(error["loc"]) == 1:
            cast("dict[str, object]", data)[missing] = _STAND_INS[missing]
            return True
        keys = keys[:-1]
    if not keys:
        return False
    holder = data
    for step in error["loc"][: keys[-1]]:
        holder = _at(holder, step)
    if isinstance(holder, dict):
        holder.pop(error["loc"][keys[-1]], None)
    return True


def _at(holder: object, step: str | int) -> object:
    if isinstance(holder, dict):
        return holder.get(step)
    return holder[step] if isinstance(holder, list) and isinstance(step, int) else None


def _finding(error: ErrorDetails, document: Document) -> Finding:
    path: Path = error["loc"]
    key = _key(path)
    match error["type"]:
        case "missing":
            return Finding(path, f"{key!r} is missing", f"write {key}: {_EXAMPLES[key]}")
        case "extra_forbidden":
            return Finding(path, f"unknown key {quoted(key)}", _known(key, path), document.keys[path])
        case "too_short":
            return Finding(
                path, "an empty list says nothing", f"write {_EXAMPLES[key]}, or leave the key out"
            )
        case "too_long":
            return Finding(path, f"more than {MOST} entries", "split it, or use patterns")
        case "list_type":
            return Finding(
                path, f"{shown(error['input'])} stands where a list is wanted", _as_list(error, key)
            )
        case "model_type":
            example = _ITEMS[key] if path and path[-1] != key else _EXAMPLES[key]
            return Finding(path, f"{shown(error['input'])} stands where a map is wanted", f"write {example}")
        case _ if error["type"] == OURS:
            return Finding(path, error["ctx"]["what"], error["ctx"]["instead"])
    raise AssertionError(error)


def _key(path: Path) -> str:
    """The innermost key on the way; empty at the top."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _known(key: str, path: Path) -> str:
    return did_you_mean(key, _MODELS[_key(path[:-1])].model_fields)


def _as_list(error: ErrorDetails, key: str) -> str:
    value = error["input"]
    if isinstance(value, str) and len(value) <= LONGEST_QUOTE:
        return f'write ["{value}"]'
    return f"write {_EXAMPLES[key]}"
