"""The JSON Schema of the policy file, for editors."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import cleandoc
from itertools import pairwise
from typing import TypeGuard

from reaper.config import models
from reaper.config.parts import Key, Labelled, OrOff, Part, Reader, Several, Value

Schema = dict[str, object]


def schema() -> Schema:
    """Everything that an editor can check and complete."""
    parts: dict[str, Schema] = {}
    top = _map(models.File, parts)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": parts, **top}


def _map(part: type[Part], parts: dict[str, Schema]) -> Schema:
    """A map of the file; the maps below it go into `parts`, once for all places where they stand."""
    shown = {name: _key(part, name, key, parts) for name, key in part.keys.items()}
    needed = [name for name, key in part.keys.items() if key.needed]
    return {
        "additionalProperties": False,
        "description": cleandoc(part.__doc__ or ""),
        "properties": shown,
        **({"required": needed} if needed else {}),
        "title": part.__name__,
        "type": "object",
        **part.schema,
    }


def _key(part: type[Part], name: str, key: Key, parts: dict[str, Schema]) -> Schema:
    """What may stand at a key; it is written or left out, and nothing in the file is ever null."""
    is_part = isinstance(key.reader, OrOff) or _is_part(key.reader)
    return {
        **({} if key.shown is None else {"default": key.shown}),
        "description": key.described or _sentence(part, name),
        **_read_by(key.reader, parts),
        **({} if is_part else {"title": name.replace("_", " ").title()}),
    }


def _read_by(reader: Reader[object], parts: dict[str, Schema]) -> Schema:
    match reader:
        case Value(schema=shown):
            return dict(shown)
        case OrOff(inner=inner):
            return {"anyOf": [_read_by(inner, parts), {"const": "off"}]}
        case Several():
            item = _read_by(reader.item, parts)
            listed = {"items": item, **_sizes(reader, "Items"), "type": "array"}
            return {"anyOf": [item, listed]} if reader.or_one else listed
        case Labelled():
            names = {str(reader.label.schema["pattern"]): _read_by(reader.item, parts)}
            sizes = _sizes(reader, "Properties")
            return {"additionalProperties": False, "patternProperties": names, **sizes, "type": "object"}
    if not _is_part(reader):
        raise AssertionError(reader)
    if reader.__name__ not in parts:
        parts[reader.__name__] = _map(reader, parts)
    return {"$ref": f"#/$defs/{reader.__name__}"}


def _is_part(reader: object) -> TypeGuard[type[Part]]:
    return isinstance(reader, type) and issubclass(reader, Part)


def _sizes(reader: Several[object] | Labelled[object], of: str) -> Mapping[str, int]:
    return {**({f"min{of}": reader.least} if reader.least else {}), f"max{of}": reader.most}


def _sentence(part: type[Part], name: str) -> str:
    """What stands below a key in its model, or in the one that this one enlarges."""
    told = (_sentences().get(model.__name__, {}) for model in part.__mro__)
    return next(sentences[name] for sentences in told if name in sentences)


@cache
def _sentences() -> dict[str, dict[str, str]]:
    """What stands below each key of each model; looked for here, for only editors need it."""
    tree = ast.parse(inspect.getsource(models))
    return {part.name: dict(_below_keys(part)) for part in tree.body if isinstance(part, ast.ClassDef)}


def _below_keys(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in pairwise(model.body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(sentence))):
                yield key, sentence
