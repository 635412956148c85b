"""`reaper snapshot`: save one look at a server, to judge it later or elsewhere."""

import sys
from pathlib import Path

import click

from reaper.cli.exits import Misconfigured
from reaper.cli.look import look_at
from reaper.cli.options import dsn_option, policies_option, server_option
from reaper.cli.targets import pick_server, read_settings
from reaper.record.snapshot_writer import dump_snapshot


@click.command
@policies_option
@dsn_option
@server_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
def snapshot(*, policies: Path, dsn: str | None, server: str | None, file: Path) -> None:
    """Save one snapshot to FILE (default: stdout), for `reaper plan --snapshot`.

    Holds who is connected, from where, in which state and since when; never a query. The policy file is
    needed only when it names the servers.
    """
    settings = read_settings(policies) if policies.exists() else None
    data = dump_snapshot(look_at(pick_server(settings, dsn, server), None))
    if str(file) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
