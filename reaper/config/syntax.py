"""Bytes to YAML events; what no YAML parser could read, in sentences."""

from collections.abc import Iterator
from typing import Final

import yaml

from reaper.config.mistakes import quoted

LARGEST: Final = 10 * 1024 * 1024


class NotYaml(Exception):
    """Why the text cannot be read as one YAML document, and where."""

    def __init__(self, *, line: int = 1, column: int = 1, what: str, instead: str) -> None:
        super().__init__(what)
        self.line = line
        self.column = column
        self.what = what
        self.instead = instead


def decode(data: bytes) -> str:
    """The text of the file; a byte order mark is no part of it."""
    if len(data) > LARGEST:
        what = f"the file is larger than {LARGEST // 1024 // 1024} MiB"
        raise NotYaml(what=what, instead="name another file; this is something else")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _position(data[: error.start].decode("utf-8", "replace"))
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise NotYaml(line=line, column=column, what=what, instead="save the file as UTF-8") from None


def events(text: str) -> Iterator[yaml.Event]:
    """What the parser meets, in order."""
    # Always the parser in Python: the one in C words and places its errors otherwise, where it is installed.
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        raise _unreadable_character(error, text) from None
    except yaml.MarkedYAMLError as error:
        raise _bad_syntax(error) from None
    except (ValueError, OverflowError):
        # The parser turns the numbers of directives and escapes into integers unseen.
        instead = "delete the directive, or write the character itself"
        raise NotYaml(what="a %YAML directive or a \\U escape is out of range", instead=instead) from None


def _unreadable_character(error: yaml.reader.ReaderError, text: str) -> NotYaml:
    line, column = _position(text[: error.position])
    character = text[error.position]
    what = f"the character {quoted(character)} cannot stand in YAML"
    # NUL between letters is how another encoding looks.
    instead = "delete it" if character != "\0" else "delete it, or save the file as UTF-8"
    return NotYaml(line=line, column=column, what=what, instead=instead)


def _bad_syntax(error: yaml.MarkedYAMLError) -> NotYaml:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = error.problem or "this cannot be read"
    if "'\\t'" in problem:
        what, instead = "a tab stands where YAML wants spaces", "indent with spaces"
    elif "mapping values are not allowed" in problem:
        what, instead = "a ': ' stands inside a value", "put the value in quotes, or mend the indentation"
    else:
        what = f"not YAML: {problem}"
        instead = "look at the indentation, colons, quotes and brackets here and just above"
    return NotYaml(line=line, column=column, what=what, instead=instead)


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
