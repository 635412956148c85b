"""The commands people type."""

import errno
import os
import resource
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from typing import Final

import click

from reaper.cli.app import ending_unread, let_go, reaper
from reaper.cli.errors import Defect, Exit, Misconfigured

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run the command line."""
    if not (sys.stdout and sys.stderr):
        # Whatever is opened next gets the free number, and is written to as if it were the output.
        print("stdout or stderr is closed: redirect it, to /dev/null if need be", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.USAGE)
    with suppress(OSError, ValueError):
        # A dump of our memory would hold passwords. systemd-coredump, handed one all the same, heeds it.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal or a log is not of UTF-8, a name must not end the command that shows it.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with ending_unread():
            sys.exit(_ended())
    finally:
        let_go()


def _ended() -> int:
    """Run a command to its end; its exit code, whether or not somebody reads why."""
    try:
        return int(reaper.main(prog_name="reaper", standalone_mode=False) or Exit.FINE)
    except click.ClickException as error:
        return _told(error)
    except click.Abort:
        with suppress(OSError):
            click.echo("Aborted!", err=True)
        return Exit.NO
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            return _told(_defect(error))
        return _told(Misconfigured(f"the output cannot be written: {os.strerror(error.errno)}"))
    except Exception as error:  # noqa: BLE001 (left alone it would end with 1, which is a no)
        return _told(_defect(error))


def _told(error: click.ClickException) -> int:
    with suppress(OSError):
        error.show()
    return error.exit_code


def _defect(error: Exception) -> Defect:
    trace = "".join(traceback.format_exception(error)).rstrip()
    return Defect(f"{trace}\nthis is a defect of the reaper: please report the lines above")
