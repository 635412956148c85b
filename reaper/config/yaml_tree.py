"""YAML text to plain data with the place of every key and value.

Depth, number of values and use of aliases are bounded: `yaml.compose` itself recurses, and follows aliases
into exponential size. Plain scalars are not converted: where YAML 1.1 would read `no` as false, `1:30` as 90
and `010` as 8, the reader of the value decides, and says in its own words what to write.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import yaml

from reaper.config.errors import TOP, BadPolicyFile, Issue, KeyPath, Mistake, Position, at_top, dotted, quoted

LARGEST: Final = 10 * 1024 * 1024
DEEPEST: Final = 40
MOST_VALUES: Final = 100_000

_TAG: Final = "tag:yaml.org,2002:"
_NO_CHARACTER: Final = re.compile("[\\0\ud800-\udfff]")
_ALIAS: Final = re.compile(r"\*[^\s,\]}#]*")


class _Mark(Protocol):
    """A place in PyYAML's words; its two loaders have a class each."""

    index: int
    line: int
    column: int


NOTHING: Final = "nothing"
NUMBER: Final = "a number"
_KINDS: Final = {"bool": "a boolean", "int": NUMBER, "float": NUMBER, "timestamp": "a date", "null": NOTHING}
_TEXTS: Final = frozenset({"str", "value", "merge"})


@dataclass(frozen=True, slots=True)
class PlainScalar:
    """A text without quotes that YAML does not read as a text."""

    text: str
    kind: str
    """What YAML reads it as, such as `a number`."""


@dataclass(frozen=True, slots=True)
class Document:
    """The plain data of a file (dict, list, str, PlainScalar), its places, and the mistakes in its YAML."""

    file: str
    data: object
    places: dict[KeyPath, Position]
    keys: dict[KeyPath, Position]
    issues: tuple[Issue, ...]

    def mistakes(self, issues: Iterable[Issue]) -> list[Mistake]:
        """The issues at their places, in the order of the file."""
        return sorted({self._mistake(issue) for issue in issues})

    def _mistake(self, issue: Issue) -> Mistake:
        path = issue.path[:-1] if issue.key else issue.path
        while path and path not in self.places:
            path = path[:-1]
        line, column = issue.key or self.places[path]
        where = dotted(path)
        return Mistake(
            file=self.file, line=line, column=column, where=where, what=issue.what, instead=issue.instead
        )


def parse(data: bytes, file: str, *, below: str = "") -> Document:
    """Read the one YAML document of a file; with `below`, as if it stood under that key."""
    text = _decode(data, file)
    try:
        root = _compose(text)
        if root is None:
            least = "write version: 1, and policies: below it"
            _refuse("the file is empty", "write [] if there are no servers" if below else least)
        tree = _TreeBuilder()
        at: KeyPath = (below,) if below else ()
        value = tree.value(root, at, _place(root.start_mark), depth=len(at))
    except _NotYaml as error:
        raise BadPolicyFile(at_top(file, *error.args)) from None
    tree.places.setdefault((), TOP)
    issues = (*tree.issues, *_unfinished(text))
    return Document(file, {below: value} if below else value, tree.places, tree.keys, issues)


def _decode(data: bytes, file: str) -> str:
    """The text of a file without its byte order mark."""
    if len(data) > LARGEST:
        what = f"the file is larger than {LARGEST // 1024 // 1024} MiB"
        raise BadPolicyFile(at_top(file, what, "name another file; this is no policy file"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _position(data[: error.start].decode("utf-8", "replace"))
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8"
        raise BadPolicyFile(at_top(file, what, "save the file as UTF-8", place)) from None


def _unfinished(text: str) -> Iterator[Issue]:
    """Refuse a last line without a line break: a half-written file may lack an allowlist, or a role."""
    # Brackets around the whole file show as well whether it is complete.
    if not text.endswith("\n") and not text.lstrip().startswith(("{", "[")):
        what = "the last line has no line break, as in a half-written file"
        yield Issue((), what, "end it with a line break once the file is complete", _position(text))


class _NotYaml(Exception):
    """What is wrong with a text that is not one YAML document, what to write instead, and its place."""


def _refuse(what: str, instead: str, place: Position = TOP) -> NoReturn:
    raise _NotYaml(what, instead, place)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's loader with bounds on what its recursive composer is given.

    Not the loader in C: its error messages and places differ, and it is not installed everywhere.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str | None] = []
        self._values = 0

    def get_event(self) -> yaml.Event:
        event: yaml.Event = super().get_event()  # type: ignore[no-untyped-call]
        match event:
            case yaml.CollectionStartEvent():
                self._open.append(event.anchor)
            case yaml.CollectionEndEvent():
                self._open.pop()
            case yaml.AliasEvent() if event.anchor in self._open:
                what = f"the alias {quoted(event.anchor or '')} refers to itself"
                _refuse(what, "write the value out", _place(event.start_mark))
        if isinstance(event, yaml.NodeEvent):
            self._values += 1
            _check_bounds(len(self._open), self._values, _place(event.start_mark))
        return event


def _check_bounds(depth: int, values: int, place: Position) -> None:
    if depth > DEEPEST:
        _refuse(f"nested deeper than {DEEPEST} levels", "write it as flat as the schema is", place)
    if values > MOST_VALUES:
        what = f"more than {MOST_VALUES:,} values, each use of an alias counted"
        _refuse(what, "write fewer policies, or fewer aliases", place)


def _compose(text: str) -> yaml.Node | None:
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_BoundedLoader)
    except yaml.reader.ReaderError as error:
        _bad_character(error, text)
    except yaml.MarkedYAMLError as error:
        _bad_syntax(error, text)
    except (ValueError, OverflowError):
        # The parser turns the numbers of directives and escapes into integers unchecked.
        instead = "delete the directive, or write the character itself"
        _refuse("a %YAML directive or a \\U escape is out of range", instead)
    return root


def _bad_character(error: yaml.reader.ReaderError, text: str) -> NoReturn:
    what = f"the character {quoted(text[error.position])} is not allowed in YAML"
    # NUL between letters is how UTF-16 looks.
    _refuse(what, "delete it, or save the file as UTF-8", _position(text[: error.position]))


_PROBLEMS: Final = {
    "another document": ("a second document begins", "write one document, without another '---'"),
    "duplicate anchor": ("this anchor is defined twice", "write the value out"),
    "'\\t'": ("a tab is used for indentation", "indent with spaces"),
    "mapping values are not allowed": (
        "a ': ' stands inside a value",
        "put the value in quotes, or correct the indentation",
    ),
}
"""What PyYAML says, and what we say."""


def _bad_syntax(error: yaml.MarkedYAMLError, text: str) -> NoReturn:
    said = f"{error.context}: {error.problem}"
    if "scanning an alias" in said:
        _bad_alias(text, error.context_mark)
    if "undefined alias" in said:
        _bad_alias(text, error.problem_mark)
    instead = "check the indentation, colons, quotes and brackets here and just above"
    unknown = (f"not YAML: {error.problem or 'this cannot be read'}", instead)
    words = next((words for problem, words in _PROBLEMS.items() if problem in said), unknown)
    _refuse(*words, _place(error.problem_mark or error.context_mark))


def _bad_alias(text: str, mark: _Mark | None) -> NoReturn:
    """Without quotes `*_x` is an alias to YAML, where most people want a glob."""
    found = _ALIAS.match(text, mark.index if mark else 0)
    written = found[0] if found else "*"
    example = f': "{written}"' if quoted(written) == f"'{written}'" else ""
    what = f"{quoted(written)} is an alias to YAML, and no such anchor exists"
    _refuse(what, f"quote globs that begin with *{example}", _place(mark))


class _TreeBuilder:
    """Converts nodes to plain data, and collects places and issues."""

    def __init__(self) -> None:
        self.places: dict[KeyPath, Position] = {}
        self.keys: dict[KeyPath, Position] = {}
        self.issues: list[Issue] = []
        self._values = 0

    def value(self, node: yaml.Node, path: KeyPath, key: Position, depth: int) -> object:
        """Convert one node, and count it again wherever an alias repeats it."""
        self._values += 1
        _check_bounds(depth, self._values, key)
        # A block begins below its key, and the key is where a person looks for it.
        is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        self.places[path] = key if is_block else _place(node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._check_tag(node, path, "map" if isinstance(node, yaml.MappingNode) else "seq")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        return [
            self.value(item, (*path, number), _place(item.start_mark), depth + 1)
            for number, item in enumerate(node.value)
        ]

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> object:
        self._check_tag(node, path, *_KINDS, *_TEXTS)
        value = _scalar(node)
        return value if isinstance(value, PlainScalar) else self._characters(value, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, object]:
        data: dict[str, object] = {}
        for key, value in node.value:
            place = _place(key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                instead = "write a name before the colon"
                self._report((*path, "?"), "a list or a map is used as a key", instead, place)
            elif key.tag == f"{_TAG}merge":
                self._report((*path, "<<"), "merge keys are not supported", "write its keys out", place)
            else:
                self._pair(key, value, path, data, depth)
        return data

    def _pair(
        self, key: yaml.ScalarNode, value: yaml.Node, path: KeyPath, data: dict[str, object], depth: int
    ) -> None:
        name, place = self._characters(key.value, path), _place(key.start_mark)
        here = (*path, name)
        self._check_tag(key, here, *_KINDS, *_TEXTS, key=place)
        if name in data:
            what = f"the key {quoted(name)} is repeated, first in line {self.keys[here].line}"
            self._report(here, what, "delete one of them", place)
            return
        self.keys[here] = place
        data[name] = self.value(value, here, place, depth + 1)

    def _characters(self, text: str, path: KeyPath) -> str:
        """Refuse NUL and lone surrogates: only an escape can spell them, and PostgreSQL takes neither."""
        if found := _NO_CHARACTER.search(text):
            self._report(path, f"{quoted(found[0])} is not a character", "delete the escape")
        return _NO_CHARACTER.sub("?", text)

    def _report(self, path: KeyPath, what: str, instead: str, key: Position | None = None) -> None:
        self.issues.append(Issue(path, what, instead, key))

    def _check_tag(self, node: yaml.Node, path: KeyPath, *known: str, key: Position | None = None) -> None:
        if node.tag.removeprefix(_TAG) not in known:
            what = f"the tag {quoted(node.tag.replace(_TAG, '!!'))} is not supported"
            self._report(path, what, "write the value without a tag", key)


def _scalar(node: yaml.ScalarNode) -> str | PlainScalar:
    kind = _KINDS.get(node.tag.removeprefix(_TAG))
    return node.value if kind is None else PlainScalar(node.value, kind)


def _place(mark: _Mark | None) -> Position:
    return Position(mark.line + 1, mark.column + 1) if mark else TOP


def _position(before: str) -> Position:
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
