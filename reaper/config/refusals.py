"""What is refused, as a sentence about the place it means."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from reaper.config import models
from reaper.config.document import Document
from reaper.config.dsn import SECRETS, WHERE_SECRETS_BELONG
from reaper.config.mistakes import LONGEST_QUOTE, Finding, Path, quoted
from reaper.config.parts import Part, Refusal, Why
from reaper.config.scalars import Plain
from reaper.config.wording import did_you_mean, shown

_EXAMPLES: Final[Mapping[str, str]] = {
    "": "version: 1, and policies: below it",
    "version": "1",
    "servers": "a list such as [{name: orders, dsn: host=db-1}]",
    "servers_from": "servers.d/*.yaml",
    "labels": "{env: prod}",
    "protect": '{role: ["*_migrator"]}',
    "notify": "a list such as [{name: ops, webhook_file: secrets/ops-url}]",
    "on": "[brakes, blindness]",
    "policies": "a list of maps, each with its name and its match",
    "name": "orders",
    "only": "{env: prod}",
    "value": "[prod]",
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
    "churn": "{within: 10s, pause: 10m}, or off",
}

_ITEMS: Final[Mapping[str, str]] = {
    "servers": "{name: orders, dsn: host=db-1}",
    "notify": "{name: ops, webhook_file: secrets/ops-url}",
    "policies": "a map with a name and a match",
}
_SHORTER: Final[Mapping[str, str]] = {
    "during": "split the policy",
    "servers": "split the list, and name the files in servers_from",
    "labels": "leave out those that no policy asks for",
    "only": "ask for fewer",
}
_NEEDED: Final = frozenset({"policies", "state", "per"})
_MODELS: Final[Mapping[str, type[Part]]] = {
    "": models.File,
    "servers": models.Server,
    "protect": models.Selector,
    "notify": models.Notify,
    "policies": models.Policy,
    "match": models.Match,
    "allowlist": models.Selector,
    "when": models.When,
    "keep": models.Keep,
    "cap": models.Cap,
    "pace": models.Pace,
    "brake": models.Brake,
    "churn": models.Churn,
}
"""Which model reads the map under a key; no key is the top of the file."""


def finding(refusal: Refusal, document: Document) -> Finding:
    """The finding about one refusal."""
    what, instead = _SENTENCES[refusal.why](refusal)
    key = document.keys[refusal.path] if refusal.of_a_key else None
    return Finding(refusal.path, what, instead, key)


def _missing(refusal: Refusal) -> tuple[str, str]:
    key = _key(refusal.path)
    return f"{key!r} is missing", f"write {key}: {_EXAMPLES[key]}"


def _unknown(refusal: Refusal) -> tuple[str, str]:
    key = _key(refusal.path)
    if key in SECRETS:
        return f"unknown key {quoted(key)}", WHERE_SECRETS_BELONG
    known = _MODELS[_key(refusal.path[:-1])].keys
    return f"unknown key {quoted(key)}", did_you_mean(key, known)


def _no_map(refusal: Refusal) -> tuple[str, str]:
    is_item = refusal.path and isinstance(refusal.path[-1], int)
    example = (_ITEMS if is_item else _EXAMPLES)[_key(refusal.path)]
    return f"{_said(refusal)} stands where a map is wanted", f"write {example}"


def _no_list(refusal: Refusal) -> tuple[str, str]:
    value, key = refusal.value, _key(refusal.path)
    text = value.text if isinstance(value, Plain) else value
    is_name = isinstance(text, str) and 0 < len(text) <= LONGEST_QUOTE and key not in _ITEMS
    is_shown = is_name and "notify" not in refusal.path and "//" not in str(text)
    example = f"[{json.dumps(text, ensure_ascii=False)}]" if is_shown else _EXAMPLES[key]
    return f"{_said(refusal)} stands where a list is wanted", f"write {example}"


def _empty(refusal: Refusal) -> tuple[str, str]:
    key = _key(refusal.path)
    kind = "map" if isinstance(refusal.value, dict) else "list"
    or_not = "" if key in _NEEDED else ", or leave the key out"
    return f"an empty {kind} says nothing", f"write {_EXAMPLES[key]}{or_not}"


def _too_long(refusal: Refusal) -> tuple[str, str]:
    instead = _SHORTER.get(_key(refusal.path), "split the file, or write patterns")
    return f"more than {refusal.most} entries", instead


def _ours(refusal: Refusal) -> tuple[str, str]:
    return refusal.what, refusal.instead


def _key(path: Path) -> str:
    """The innermost key on the way that the schema knows by name; empty at the top."""
    keys = [step for step in path if isinstance(step, str)]
    return "value" if keys[-2:-1] in (["only"], ["labels"]) else (keys or [""])[-1]


def _said(refusal: Refusal) -> str:
    """What stands there; but no text that may be the URL of a webhook in the wrong place."""
    is_text = isinstance(refusal.value, str)
    return "a text" if is_text and "notify" in refusal.path else shown(refusal.value)


_SENTENCES: Final[Mapping[Why, Callable[[Refusal], tuple[str, str]]]] = {
    Why.VALUE: _ours,
    Why.MISSING: _missing,
    Why.UNKNOWN: _unknown,
    Why.NO_MAP: _no_map,
    Why.NO_LIST: _no_list,
    Why.EMPTY: _empty,
    Why.TOO_LONG: _too_long,
}
