"""Changes of the policy file, for every reaper but the witness."""

from pathlib import Path

from tests.system.policies import FILE

from .load import LIMIT
from .rules import rules
from .world import World


def decree(world: World, *, dsn: str | None = None, mode: str = "enforce", limit: float = LIMIT) -> None:
    """From now on, let them work by other rules or by another way; without words by the ordinary ones."""
    world.decreed = rules(dsn or world.way_in, limit=limit, mode=mode)
    for path in policy_files(world):
        swap(path, world.decreed)


def policy_files(world: World) -> list[Path]:
    """The policy files of those that may act, whether they are up or not."""
    return [each.folder / FILE for each in world.reapers if each is not world.witness]


def swap(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Put other content in a file's place, so that nobody sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(mode)
    beside.replace(path)
