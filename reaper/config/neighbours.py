"""The files that a policy file names beside itself, whatever is in them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reaper.config.models import Head


class Named(NamedTuple):
    """Paths and patterns, from the working directory on."""

    servers_from: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def named(head: Head | None, file: str) -> Named:
    """What this policy file names; its folder is where relative paths begin."""
    if head is None:
        return Named()
    folder = Path(file).parent
    patterns = tuple(str(folder / pattern) for pattern in head.servers_from or ())
    return Named(patterns, tuple(str(folder / secret) for secret in _secrets(head)))


def _secrets(head: Head) -> Iterator[str]:
    for notify in head.notify or ():
        if notify.webhook_file is not None:
            yield notify.webhook_file
