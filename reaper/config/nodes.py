"""YAML text to nodes that know their place; nothing here is deep, endless or executable.

The nodes are built from the parser's events rather than by its composer: that one goes as deep as the file
wants, follows aliases into the exponential, and leaves duplicate keys to the reader.
"""

from dataclasses import dataclass, field
from typing import Final

import yaml

from reaper.config.mistakes import Place, quoted
from reaper.config.syntax import NotYaml, events

DEEPEST: Final = 40
MOST_NODES: Final = 100_000


@dataclass(slots=True, kw_only=True)
class Node:
    """One value of the file."""

    place: Place
    tag: str | None
    flow: bool = True
    """Whether it begins where it is written; a block begins below its key."""
    size: int = 1
    """How many values it stands for, itself and every use of an alias included."""
    height: int = 1

    def hold(self, child: "Node") -> None:
        """Count a value that stands in this one."""
        self.size += child.size
        self.height = max(self.height, child.height + 1)


@dataclass(slots=True, kw_only=True)
class Scalar(Node):
    """A text, as it was written."""

    text: str
    plain: bool
    """Whether it stands without quotes, so that YAML guesses what it is."""


@dataclass(slots=True, kw_only=True)
class Sequence(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Mapping(Node):
    """A map, with its duplicate keys still in it."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    key: Node | None = None
    """The key that waits for its value."""


def compose(text: str) -> Node | None:
    """The one document of this text, or nothing when there is none; NotYaml when it cannot be read."""
    composer = _Composer()
    for event in events(text):
        composer.take(event)
    return composer.root


class _Composer:
    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[Sequence | Mapping, str | None]] = []
        self._anchors: dict[str, Node] = {}
        self._size = 0

    def take(self, event: yaml.Event) -> None:
        """Add what one event says to the tree."""
        match event:
            case yaml.DocumentStartEvent() if self.root is not None:
                raise _not_yaml(
                    event, "a second document begins", "write one document, without another '---'"
                )
            case yaml.ScalarEvent():
                self._measure(event, size=1, height=1)
                self._put(_scalar(event), event.anchor)
            case yaml.SequenceStartEvent():
                self._begin(Sequence(place=_place(event), tag=event.tag, flow=_flows(event)), event)
            case yaml.MappingStartEvent():
                self._begin(Mapping(place=_place(event), tag=event.tag, flow=_flows(event)), event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._put(*self._open.pop())
            case yaml.AliasEvent():
                node = self._named(event)
                self._measure(event, size=node.size, height=node.height)
                self._put(node, None)

    def _begin(self, node: Sequence | Mapping, event: yaml.CollectionStartEvent) -> None:
        self._open.append((node, event.anchor))
        self._measure(event, size=1, height=0)

    def _put(self, node: Node, anchor: str | None) -> None:
        """Hang a finished node where it belongs."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent, _ = self._open[-1]
        parent.hold(node)
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            parent.pairs.append((parent.key, node))
            parent.key = None

    def _measure(self, event: yaml.Event, *, size: int, height: int) -> None:
        self._size += size
        if len(self._open) + height > DEEPEST:
            raise _not_yaml(event, f"nested deeper than {DEEPEST}", "write it as flat as the schema is")
        if self._size > MOST_NODES:
            what = f"more than {MOST_NODES:,} values, with every alias written out"
            raise _not_yaml(event, what, "write fewer policies, or fewer aliases")

    def _named(self, event: yaml.AliasEvent) -> Node:
        name = event.anchor or ""
        if any(anchor == name for _, anchor in self._open):
            raise _not_yaml(event, f"the alias {quoted(name)} stands inside itself", "write the value out")
        if name not in self._anchors:
            raise _not_yaml(event, f"the alias {quoted(name)} has no anchor", "write the value out")
        return self._anchors[name]


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    plain = event.style is None
    return Scalar(place=_place(event), tag=event.tag, text=event.value, plain=plain)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    # Events made by hand carry no mark; parsed ones always do.
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


def _flows(event: yaml.CollectionStartEvent) -> bool:
    return bool(event.flow_style)


def _not_yaml(event: yaml.Event, what: str, instead: str) -> NotYaml:
    place = _place(event)
    return NotYaml(line=place.line, column=place.column, what=what, instead=instead)
