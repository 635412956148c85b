"""The servers of a campaign."""

from collections.abc import Mapping
from pathlib import Path

from reaper.demo.server import EmbeddedServer


class Server(EmbeddedServer):
    """A server whose environment can be changed between its lives."""

    def __init__(self, *, binaries: Path, settings: Mapping[str, str]) -> None:
        super().__init__(binaries=binaries, settings=settings)
        self.environment: dict[str, str] = {}
        """What its next life will know of besides."""

    def _environment(self) -> Mapping[str, str]:
        return {**super()._environment(), **self.environment}
