"""One search, in a process of its own: the engine ends it with the process."""

import sys
from random import Random
from typing import Final

import atheris

from .inputs import mutated

_INSTRUMENTED: Final = ("reaper", "yaml", "h11", "uvicorn", "starlette", "fnmatch", "ipaddress", "urllib")


def main() -> None:
    """Search for what breaks the target that is named first, with the engine's own options behind it."""
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=[*_INSTRUMENTED], enable_loader_override=False):
        from tests.lab.fuzz.command import target  # noqa: PLC0415 (what is imported here is instrumented)

        chosen = target(name)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311 (a search, not a secret)
        if not chosen.words or random.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return mutated(data, chosen.words, random)[:longest]

    atheris.Setup([sys.argv[0], *options], chosen.check, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
