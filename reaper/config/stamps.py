"""Whether a policy file, or a file that it names, has changed since it was read."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NewType

from reaper.config.contents import Unreadable, contents, found
from reaper.config.settings import Settings

Stamp = NewType("Stamp", str)
"""Equal as long as reading everything again would mean the same."""


def stamp(path: Path, settings: Settings) -> Stamp:
    """The digest of all that a reload would read now; what cannot be read counts as such."""
    digest = hashlib.sha256()
    for fact in _facts(path, settings):
        digest.update(repr(fact).encode())
    return Stamp(digest.hexdigest())


def _facts(path: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    files = {path, *map(Path, settings.secrets)}
    for pattern in settings.servers_from:
        try:
            files.update(found(pattern))
        except Unreadable as error:
            yield pattern, f"unreadable: {error}"
    for file in sorted(files):
        yield str(file), _content(file)


def _content(file: Path) -> str:
    try:
        return hashlib.sha256(contents(file)).hexdigest()
    except Unreadable as error:
        return f"unreadable: {error}"
