"""The files that a policy file names: which there are, and what is in them."""

import errno
import fnmatch
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

from reaper.config.syntax import LARGEST

_PATIENCE_SECONDS: Final = 5.0
_CHUNK: Final = 65_536


class Unreadable(Exception):
    """Why a file or a folder cannot be read, in the words of the system."""


class Vanished(Unreadable):
    """Nothing is there, or nothing any more."""


def contents(file: str) -> bytes:
    """Everything in a file, but for what no file of ours is large enough to hold."""
    try:
        # A pipe would otherwise keep whoever opens it waiting for a writer.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
            return opened.read(min(_size(opened.fileno()), LARGEST) + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error


def piped(file: str) -> bytes:
    """The same, and what comes through a pipe at once: `-p <(make-policies)`; nobody is waited for longer."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as opened:
            if stat.S_ISFIFO(os.fstat(opened.fileno()).st_mode):
                return _from_a_pipe(opened.fileno())
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    return contents(file)


def found(pattern: str) -> list[str]:
    """The files that this pattern finds now, not the hidden ones, and its folder to the letter."""
    last = Path(pattern).name
    folder = pattern.removesuffix(last)
    try:
        names = [file.name for file in Path(folder).iterdir()]
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    # As in a shell: what an editor or a mounted volume hides there is not meant.
    seen = (name for name in names if last.startswith(".") or not name.startswith("."))
    return [folder + name for name in seen if fnmatch.fnmatchcase(name, last)]


def reason(error: OSError | ValueError) -> str:
    """What the system says, without the name of the file."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _from_a_pipe(descriptor: int) -> bytes:
    data = bytearray()
    end = time.monotonic() + _PATIENCE_SECONDS
    while len(data) <= LARGEST:
        ready, _, _ = select.select([descriptor], [], [], max(end - time.monotonic(), 0))
        if not ready:
            told = f"It is a pipe, and nobody has written all of it within {_PATIENCE_SECONDS:g} seconds"
            raise OSError(errno.ETIMEDOUT, told)
        if not (chunk := os.read(descriptor, _CHUNK)):
            break
        data += chunk
    return bytes(data)


def _size(descriptor: int) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    return status.st_size


def _unreadable(error: OSError | ValueError) -> Unreadable:
    is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
    return (Vanished if is_gone else Unreadable)(reason(error))
