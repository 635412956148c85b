"""Values of ours as JSON knows them: objects, lists, texts and numbers."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum


def as_document(value: object) -> object:
    """The value with everything in it; what has a name for each part is an object."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {field.name: as_document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_document(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [as_document(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): as_document(part) for name, part in value.items()}
    return value
