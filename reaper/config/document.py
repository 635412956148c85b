"""Nodes to plain data, and the map from every path to its place."""

import re
from dataclasses import dataclass
from typing import Final

from reaper.config.mistakes import TOP, Finding, Mistake, Path, Place, dotted, quoted
from reaper.config.nodes import Mapping, Node, Scalar, Sequence
from reaper.config.scalars import plain

_NO_CHARACTER: Final = re.compile("[\\0\ud800-\udfff]")

Data = object
"""What the models are given: dict, list, str, or Plain."""


@dataclass(frozen=True, slots=True)
class Document:
    """The plain data of a file, where everything stands, and what is wrong whatever it means."""

    data: Data
    places: dict[Path, Place]
    keys: dict[Path, Place]
    findings: tuple[Finding, ...]

    def known(self, path: Path) -> Path:
        """The longest part of a path that the file really has."""
        while path and path not in self.places:
            path = path[:-1]
        return path

    def mistake(self, finding: Finding, file: str) -> Mistake:
        """Say where in the file a finding stands."""
        path = self.known(finding.path[:-1] if finding.key else finding.path)
        line, column = finding.key or self.places[path]
        return Mistake(
            file=file,
            line=line,
            column=column,
            where=dotted(path),
            what=finding.what,
            instead=finding.instead,
        )


def document(root: Node) -> Document:
    """Convert a whole tree."""
    reading = _Reading()
    data = reading.value(root, TOP, root.place)
    return Document(data, reading.places, reading.keys, tuple(reading.findings))


class _Reading:
    def __init__(self) -> None:
        self.places: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.findings: list[Finding] = []

    def value(self, node: Node, path: Path, key: Place) -> Data:
        """Convert one node; nodes are never deep enough for this to matter."""
        self.places[path] = node.place if node.flow else key
        if node.tag is not None:
            self._find(path, f"the tag {_tag(node.tag)} is not read", "write the plain value, without a tag")
        match node:
            case Mapping():
                return self._mapping(node, path)
            case Sequence():
                return [self.value(item, (*path, n), item.place) for n, item in enumerate(node.items)]
            case Scalar():
                return self._scalar(node, path)
        raise AssertionError(node)

    def _scalar(self, node: Scalar, path: Path) -> Data:
        text = self._characters(node.text, path)
        return plain(text) if node.plain else text

    def _characters(self, text: str, path: Path) -> str:
        """Refuse NUL and half surrogate pairs: an escape can spell them, and nobody else takes them."""
        found = _NO_CHARACTER.search(text)
        if not found:
            return text
        self._find(path, f"{quoted(found[0])} is no character", "delete the escape")
        return _NO_CHARACTER.sub("?", text)

    def _mapping(self, node: Mapping, path: Path) -> dict[str, Data]:
        data: dict[str, Data] = {}
        for key, value in node.pairs:
            if not isinstance(key, Scalar):
                what = "a list or a map stands as a key"
                self._find((*path, "?"), what, "write a name before the colon", key.place)
            elif key.plain and key.text == "<<":
                self._find((*path, "<<"), "a merge key is not read", "write its keys out", key.place)
            else:
                self._pair(key, value, path, data)
        return data

    def _pair(self, key: Scalar, value: Node, path: Path, data: dict[str, Data]) -> None:
        name = self._characters(key.text, path)
        here = (*path, name)
        if key.tag is not None:
            what = f"the tag {_tag(key.tag)} is not read"
            self._find(here, what, "write the plain key, without a tag", key.place)
        if name in data:
            what = f"the key {quoted(name)} stands here twice, first in line {self.keys[here].line}"
            self._find(here, what, "delete one of them", key.place)
            return
        self.keys[here] = key.place
        data[name] = self.value(value, here, key.place)

    def _find(self, path: Path, what: str, instead: str, key: Place | None = None) -> None:
        self.findings.append(Finding(path, what, instead, key))


def _tag(tag: str) -> str:
    return quoted(tag.replace("tag:yaml.org,2002:", "!!"))
