"""The commands people type."""

from reaper.cli.root import reaper


def main() -> None:
    """Run the command line."""
    reaper(prog_name="reaper")
