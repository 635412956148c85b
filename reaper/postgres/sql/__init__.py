"""The statements, each in a file of its own, written to be read."""

from importlib.resources import files


def statement(name: str) -> str:
    """The text of `NAME.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
