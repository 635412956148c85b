"""What pydantic refuses, as a sentence about the place it means."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from pydantic_core import ErrorDetails

from reaper.config import models
from reaper.config.document import Document
from reaper.config.dsn import SECRETS, WHERE_SECRETS_BELONG
from reaper.config.mistakes import LONGEST_QUOTE, Finding, Path, quoted
from reaper.config.scalars import Plain
from reaper.config.wording import OURS, did_you_mean, shown

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
_NEEDED: Final = frozenset({"policies", "state", "per"})
_MODELS: Final[Mapping[str, type[models.Part]]] = {
    "": models.File,
    "servers": models.Server,
    "protect": models.Selector,
    "policies": models.Policy,
    "match": models.Match,
    "allowlist": models.Selector,
    "when": models.When,
    "keep": models.Keep,
    "cap": models.Cap,
    "pace": models.Pace,
    "brake": models.Brake,
}
"""Which model reads the map under a key; no key is the top of the file."""


def refusal(error: ErrorDetails, document: Document) -> Finding:
    """The finding about one error."""
    path: Path = error["loc"]
    what, instead = _SENTENCES[error["type"]](error, path)
    key = document.keys[path] if error["type"] == "extra_forbidden" else None
    return Finding(path, what, instead, key)


def _missing(_: ErrorDetails, path: Path) -> tuple[str, str]:
    key = _key(path)
    return f"{key!r} is missing", f"write {key}: {_EXAMPLES[key]}"


def _unknown(_: ErrorDetails, path: Path) -> tuple[str, str]:
    key = _key(path)
    if key in SECRETS:
        return f"unknown key {quoted(key)}", WHERE_SECRETS_BELONG
    known = _MODELS[_key(path[:-1])].model_fields
    return f"unknown key {quoted(key)}", did_you_mean(key, known)


def _no_map(error: ErrorDetails, path: Path) -> tuple[str, str]:
    is_item = path and isinstance(path[-1], int)
    example = (_ITEMS if is_item else _EXAMPLES)[_key(path)]
    return f"{shown(error['input'])} stands where a map is wanted", f"write {example}"


def _no_list(error: ErrorDetails, path: Path) -> tuple[str, str]:
    value, key = error["input"], _key(path)
    text = value.text if isinstance(value, Plain) else value
    is_name = isinstance(text, str) and 0 < len(text) <= LONGEST_QUOTE and key not in _ITEMS
    example = f"[{json.dumps(text, ensure_ascii=False)}]" if is_name else _EXAMPLES[key]
    return f"{shown(value)} stands where a list is wanted", f"write {example}"


def _empty(_: ErrorDetails, path: Path) -> tuple[str, str]:
    key = _key(path)
    or_not = "" if key in _NEEDED else ", or leave the key out"
    return "an empty list says nothing", f"write {_EXAMPLES[key]}{or_not}"


def _too_long(error: ErrorDetails, path: Path) -> tuple[str, str]:
    instead = "split the policy" if _key(path) == "during" else "split the file, or write patterns"
    return f"more than {error['ctx']['max_length']} entries", instead


def _ours(error: ErrorDetails, _: Path) -> tuple[str, str]:
    return error["ctx"]["what"], error["ctx"]["instead"]


def _key(path: Path) -> str:
    """The innermost key on the way; empty at the top."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


_SENTENCES: Final[Mapping[str, Callable[[ErrorDetails, Path], tuple[str, str]]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "model_type": _no_map,
    "list_type": _no_list,
    "too_short": _empty,
    "too_long": _too_long,
    OURS: _ours,
}
