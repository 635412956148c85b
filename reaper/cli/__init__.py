"""The command line: one file per command. Commands parse, call and print; decisions are made below."""

import errno
import os
import resource
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from typing import Final

import click

from reaper.cli.app import exit_on_broken_pipe, reaper
from reaper.cli.errors import Defect, Exit, Misconfigured

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main() -> None:
    """Run the command line."""
    if not (sys.stdout and sys.stderr):
        # The next file that is opened would get the free descriptor and receive the output.
        print("stdout or stderr is closed\nhint: redirect it to /dev/null", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.USAGE)
    with suppress(OSError, ValueError):
        # A core dump would hold passwords. systemd-coredump honors this limit too.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (sys.stdout, sys.stderr):
        # On a terminal or log that is not UTF-8, a name must not end the command that shows it.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with exit_on_broken_pipe():
            sys.exit(_exit_code())
    finally:
        _discard_unwritten_output()


def _exit_code() -> int:
    """Run a command and return its exit code, even if the error message cannot be printed."""
    try:
        return int(reaper.main(prog_name="reaper", standalone_mode=False) or Exit.FINE)
    except click.ClickException as error:
        return _show(error)
    except click.Abort:
        with suppress(OSError):
            click.echo("Aborted!", err=True)
        return Exit.PROBLEM
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in _NO_SPACE:
            return _show(_defect(error))
        return _show(Misconfigured(f"the output cannot be written: {os.strerror(error.errno)}"))
    except Exception as error:  # noqa: BLE001 (Python would end with 1, which means "a problem was found")
        return _show(_defect(error))


def _show(error: click.ClickException) -> int:
    with suppress(OSError):
        error.show()
    return error.exit_code


def _defect(error: Exception) -> Defect:
    trace = "".join(traceback.format_exception(error)).rstrip()
    return Defect(f"{trace}\nthis is a defect of the reaper: please report the lines above")


def _discard_unwritten_output() -> None:
    """Drop output that cannot be written: at exit the interpreter would try again and print an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
