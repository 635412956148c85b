"""One file as it stands: its data with their places, or why nobody could read it."""

from collections.abc import Iterable
from dataclasses import dataclass

from reaper.config.document import Document, document
from reaper.config.mistakes import BadPolicyFile, Finding, Mistake, Place, at_top
from reaper.config.nodes import Mapping, Node, Scalar, compose
from reaper.config.syntax import NotYaml, decode

_TOP = Place(1, 1)


@dataclass(frozen=True, slots=True)
class Page:
    """A file, and everything that was found in it so far."""

    file: str
    document: Document

    def mistakes(self, findings: Iterable[Finding]) -> list[Mistake]:
        """The findings at their places, in the order of the file."""
        return sorted({self.document.mistake(finding, self.file) for finding in findings})


def policies(data: bytes, file: str) -> Page:
    """A policy file."""
    return Page(file, document(_tree(data, file, "write version: 1, and policies: below it")))


def servers(data: bytes, file: str) -> Page:
    """A list of servers, read as if it stood below `servers` in a policy file."""
    root = _tree(data, file, "write [] where there are no servers")
    key = Scalar(place=root.place, tag=None, text="servers", plain=True)
    return Page(file, document(Mapping(place=_TOP, tag=None, pairs=[(key, root)])))


def unended(data: bytes, file: str) -> list[Mistake]:
    """The last line, when it stops in its middle: half of a file may say less than it should."""
    text = decode(data)
    # Brackets around all of it show as well whether it is whole.
    if text.endswith("\n") or text.lstrip().startswith(("{", "[")):
        return []
    return [
        Mistake(
            file=file,
            line=text.count("\n") + 1,
            column=len(text) - text.rfind("\n"),
            where="file",
            what="the last line has no end, as in a file that is half-written",
            instead="end it with a line break once all of it is there",
        )
    ]


def _tree(data: bytes, file: str, instead: str) -> Node:
    try:
        root = compose(decode(data))
    except NotYaml as error:
        raise BadPolicyFile(
            Mistake(
                file=file,
                line=error.line,
                column=error.column,
                where="file",
                what=error.what,
                instead=error.instead,
            )
        ) from None
    if root is None:
        raise BadPolicyFile(at_top(file, "the file is empty", instead))
    return root
