"""Plain data to models: pydantic's errors in our words, and what is still valid in a wrong file."""

from collections.abc import Mapping
from functools import reduce
from typing import Final, NamedTuple, TypeVar, cast, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reaper.config import model
from reaper.config.errors import BadValue, Issue, KeyPath, did_you_mean, quoted
from reaper.config.patterns import SECRET_OPTIONS, WHERE_SECRETS_BELONG
from reaper.config.values import shown
from reaper.config.yaml_tree import NUMBER, Document, PlainScalar

E = TypeVar("E", bound=model.Section)

_ROUNDS: Final = 8
_STAND_INS: Final[Mapping[KeyPath, object]] = {
    ("version",): PlainScalar("1", NUMBER),
    ("name",): "unnamed",
}
_KEY_MARK: Final = "[key]"
"""The last step of the place that pydantic gives for a wrong key of a dictionary."""

_EXAMPLES: Final[Mapping[str, str]] = {
    "": "version: 1, and policies: below it",
    "version": "1",
    "servers": "{name: orders, dsn: host=db-1}",
    "labels": "{env: prod}",
    "protect": '{role: ["*_migrator"]}',
    "notify": "{name: ops, webhook_file: secrets/ops-url}",
    "policies": "{name: leaked, match: {state: idle, idle_for: 10m}}",
    "name": "orders",
    "match": "{state: idle, idle_for: 10m}",
    "allowlist": "{application: [metabase]}",
    "when": "{slots_used: 80%}",
    "slots_used": "80%",
    "keep": "{newest: 2, per: [application]}",
    "newest": "2",
    "max_sessions": "{count: 20, per: [application]}",
    "count": "20",
    "per": "[application]",
    "safety_limit": "{share: 50%, above: 5}, or none",
    "refill_guard": "{within: 10s, pause: 10m}, or none",
}
_NEEDED: Final = frozenset({"policies", "state", "per"})
_LISTS_OF_MAPS: Final = frozenset({"servers", "notify", "policies"})


class Validated(NamedTuple):
    """What is valid in a policy file, and what is not."""

    head: model.HeadSection | None
    policies: dict[int, model.PolicySection]
    """The policies that can be checked further, by their position in the file."""
    issues: list[Issue]


def validate(document: Document) -> Validated:
    """Validate a policy file; if it is wrong, also what is left of it without the wrong keys."""
    issues = _issues(model.FileSection, document)
    head = dict(document.data) if isinstance(document.data, dict) else {}
    policies = _each(model.PolicySection, head.pop("policies", None))
    return Validated(_what_is_left(model.HeadSection, head), policies, issues)


def validate_servers(document: Document) -> tuple[dict[int, model.ServerSection], list[Issue]]:
    """Validate a list of servers below the key `servers`: those that are valid, by their position."""
    issues = _issues(model.ServerFileSection, document)
    return _each(model.ServerSection, _at(document.data, "servers")), issues


def _each(section: type[E], items: object) -> dict[int, E]:
    left = (_what_is_left(section, item) for item in items) if isinstance(items, list) else ()
    return {number: one for number, one in enumerate(left) if one}


def _what_is_left(section: type[E], data: object) -> E | None:
    """The model without the keys that are wrong, so that mistakes of meaning are found at the same time."""
    for _ in range(_ROUNDS):
        try:
            return section.model_validate(data)
        except ValidationError as error:
            if not all(_cut(data, one) for one in _details(error)):
                return None
    return None


def _cut(data: object, error: ErrorDetails) -> bool:
    """Delete the innermost key that contains the mistake; False if nothing would be left."""
    path = _path(error)
    stand_in = _STAND_INS.get(path)
    if error["type"] == "missing" and stand_in is None:
        path = path[:-1]
    while path and isinstance(path[-1], int):
        path = path[:-1]
    holder = reduce(_at, path[:-1], data)
    if path and isinstance(holder, dict):
        holder.pop(path[-1], None)
        holder.update({path[-1]: stand_in} if stand_in else {})
    return bool(path)


def _at(holder: object, step: str | int) -> object:
    if isinstance(holder, dict):
        return holder.get(step)
    return holder[step] if isinstance(holder, list) and isinstance(step, int) else None


def _details(errors: ValidationError) -> list[ErrorDetails]:
    """The errors without those of lists that are too short only because pydantic leaves out wrong entries."""
    found = errors.errors(include_url=False)
    return [error for error in found if error["type"] != "too_short" or not error["input"]]


def _issues(section: type[model.Section], document: Document) -> list[Issue]:
    try:
        section.model_validate(document.data)
    except ValidationError as error:
        return [_issue(one, document) for one in _details(error)]
    return []


def _issue(error: ErrorDetails, document: Document) -> Issue:
    path = _path(error)
    what, instead = _words(error, path)
    is_of_key = error["type"] == "extra_forbidden" or path != error["loc"]
    return Issue(path, what, instead, document.keys[path] if is_of_key else None)


def _path(error: ErrorDetails) -> KeyPath:
    path: KeyPath = error["loc"]
    # A key of the file may itself be called `[key]`; then it is not repeated before the mark.
    is_of_key = error["type"] == "value_error" and path[-2:] == (error["input"], _KEY_MARK)
    return path[:-1] if is_of_key else path


def _words(error: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    """One error in our words, and what to write instead."""
    key, instead, got = _key(path), f"write {_example(path)}", _got(error, path)
    match error["type"]:
        case "missing":
            what, instead = f"{key!r} is missing", f"write {key}: {_example(path)}"
        case "extra_forbidden":
            top: type[model.Section] = model.FileSection
            known = reduce(_section_at, path[:-1], top).model_fields
            what = f"unknown key {quoted(key)}"
            instead = WHERE_SECRETS_BELONG if key in SECRET_OPTIONS else did_you_mean(key, known)
        case "model_type" | "dict_type":
            what = f"expected a map, got {got}"
        case "tuple_type":
            what = f"expected a list, got {got}"
        case "too_short":
            what = f"the {'map' if isinstance(error['input'], dict) else 'list'} is empty"
            instead += "" if key in _NEEDED else ", or leave the key out"
        case "too_long":
            what = f"more than {error['ctx']['max_length']} entries"
            instead = "write fewer, or patterns, or split the file"
        case _:
            bad = cast("BadValue", error["ctx"]["error"])
            what, instead = bad.what, bad.instead
    return what, instead


def _section_at(section: type[model.Section], step: str | int) -> type[model.Section]:
    """The model of the map under a key, or of the items of its list."""
    return section if isinstance(step, int) else _section_in(section.model_fields[step].annotation) or section


def _section_in(annotation: object) -> type[model.Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, model.Section):
        return annotation
    return next((section for part in get_args(annotation) if (section := _section_in(part))), None)


def _example(path: KeyPath) -> str:
    key = _key(path)
    example = _EXAMPLES.get(key, "one value or several")
    is_list = key in _LISTS_OF_MAPS and path[-1] == key
    return f"a list such as [{example}]" if is_list else example


def _key(path: KeyPath) -> str:
    """The innermost key of a path that the schema knows by name; empty at the top."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    match path:
        case ("policies", int(), "servers"):
            return "labels"
        case (*_, "servers" | "labels", str()):
            return "value"
    return str(path[-1]) if path else ""


def _got(error: ErrorDetails, path: KeyPath) -> str:
    """The value in words; not a text that may be the URL of a webhook at the wrong place."""
    is_text = isinstance(error["input"], str)
    return "a text" if is_text and "notify" in path else shown(error["input"])
