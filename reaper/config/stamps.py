"""Whether a policy file, or a file that it names, has changed since it was read."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NewType

from reaper.config import pages
from reaper.config.contents import Unreadable, contents, found
from reaper.config.mistakes import BadPolicyFile
from reaper.config.neighbours import Named, named
from reaper.config.settings import Settings
from reaper.config.shapes import shape

Stamp = NewType("Stamp", str)
"""Equal as long as reading everything again would mean the same."""


def stamp(path: Path, settings: Settings) -> Stamp:
    """The digest of all that a reload would read now; what cannot be read counts as such."""
    digest = hashlib.sha256()
    for fact in _facts(path, settings):
        digest.update(repr(fact).encode())
    return Stamp(digest.hexdigest())


def _facts(path: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    try:
        data = contents(str(path))
    except Unreadable as error:
        yield str(path), _unreadable(error)
        return
    now = hashlib.sha256(data).hexdigest()
    yield str(path), now
    is_in_force = now == settings.rules.digest
    names = Named(settings.servers_from, settings.secrets) if is_in_force else _named(data, str(path))
    files = set(names.secrets)
    for pattern in names.servers_from:
        try:
            files.update(found(pattern))
        except Unreadable as error:
            yield pattern, _unreadable(error)
    for file in sorted(files):
        yield file, _content(file)


@lru_cache(maxsize=1)
def _named(data: bytes, file: str) -> Named:
    """What a file names that was not taken: the mistake may stand there, and be mended there."""
    try:
        return named(shape(pages.policies(data, file).document).head, file)
    except BadPolicyFile:
        return Named()


def _content(file: str) -> str:
    try:
        return hashlib.sha256(contents(file)).hexdigest()
    except Unreadable as error:
        return _unreadable(error)


def _unreadable(error: Unreadable) -> str:
    return f"unreadable: {error}"
