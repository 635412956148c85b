"""What can be fuzzed: every file in `targets`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
NAMES: Final = tuple(
    sorted(file.stem for file in (_HERE / "targets").glob("*.py") if file.stem != "__init__")
)
FINDS: Final = _HERE / "finds"


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, what it promises, and where the search begins."""

    name: str
    check: Callable[[bytes], None]
    """Fails, in whatever way, when the promise is broken for these bytes."""
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    """What such inputs are made of, where that is text."""

    def finds(self) -> Iterator[bytes]:
        """What once broke it, as small as it could be made."""
        for file in sorted((FINDS / self.name).glob("*")):
            yield file.read_bytes()


def target(name: str) -> Target:
    """The target of this name; imported when it is asked for, so that it can be instrumented."""
    module = import_module(f"tests.lab.fuzz.targets.{name}")
    return Target(name, module.check, module.SEEDS, getattr(module, "WORDS", ()))
