"""The policy file of the demo: shipped with us, read by the real loader, and edited as a person would."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from reaper.config import Settings, load

NAME: Final = "policies.yaml"

_REHEARSING: Final = "    mode: dry-run"
_ENFORCING: Final = "    mode: enforce"


def shipped() -> str:
    """The text of the file as it comes with us."""
    return files("reaper.demo").joinpath(NAME).read_text(encoding="utf-8")


class PolicyFile:
    """A copy of the shipped file in a folder of the demo's own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.path.write_text(shipped(), encoding="utf-8")

    def read(self) -> Settings:
        """Load it as it stands now."""
        return load(self.path)

    def enforce(self) -> str:
        """Let every policy act; what has changed, and in which lines."""
        before = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        after = [line.replace(_REHEARSING, _ENFORCING) for line in before]
        self.path.write_text("".join(after), encoding="utf-8")
        changed = [
            str(n) for n, lines in enumerate(zip(before, after, strict=True), start=1) if len({*lines}) > 1
        ]
        return f"{NAME}, lines {' and '.join(changed)}: {_REHEARSING.strip()} -> {_ENFORCING.strip()}"
