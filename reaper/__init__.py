"""The idle-connection reaper for PostgreSQL."""

from importlib.metadata import version

__version__ = version("pg-reaper")
