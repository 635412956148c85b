"""The JSON Schema of the policy file, for editors."""

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from reaper.config import models


class _ForEditors(GenerateJsonSchema):
    """A key is written or left out; nothing in the file is ever null."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        shown = super().model_schema(schema)
        for model in reversed(schema["cls"].__mro__):
            for key, sentence in _sentences().get(model.__name__, {}).items():
                shown["properties"][key].setdefault("description", sentence)
        return shown

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        return {**super().dict_schema(schema), "additionalProperties": False}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        shown = super().default_schema(schema)
        if shown.get("default", ...) is None:
            del shown["default"]
        return shown


def schema() -> dict[str, object]:
    """Everything that an editor can check and complete."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **models.File.model_json_schema(schema_generator=_ForEditors),
    }


@cache
def _sentences() -> dict[str, dict[str, str]]:
    """What stands below each key of each model.

    Pydantic would look for them whenever the models are loaded, and `reaper check` needs none of them.
    """
    tree = ast.parse(inspect.getsource(models))
    return {part.name: dict(_below_keys(part)) for part in tree.body if isinstance(part, ast.ClassDef)}


def _below_keys(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in pairwise(model.body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(sentence))):
                yield key, sentence
