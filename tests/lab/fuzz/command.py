"""`python -m tests.lab fuzz`: search for inputs that break a promise."""

import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import click

from .inputs import FINDS, Target, mutated

_MODULES: Final[Mapping[str, str]] = {
    "history_file": "history_file",
    "server_rows": "server_rows",
    "query_text": "server_rows",
}
NAMES: Final = tuple(_MODULES)
_INSTRUMENTED: Final = ("reaper", "yaml", "h11", "uvicorn", "starlette", "fnmatch", "ipaddress", "urllib")


def target(name: str) -> Target:
    """The target with this name, imported now, so that the search can instrument it."""
    targets: Sequence[Target] = import_module(f"tests.lab.fuzz.{_MODULES[name]}").TARGETS
    return next(each for each in targets if each.name == name)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[TARGET]...")
@click.option("--seconds", default=60, show_default=True, help="The time for each target.")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder that keeps what the search has learned for the next one.",
)
def fuzz(names: Sequence[str], seconds: int, corpus: Path | None) -> None:
    """Search each TARGET, or all of them; exit code 1 if an input was found."""
    if not find_spec("atheris"):
        message = "the engine is not installed: pip install '.[fuzz]'"
        raise click.ClickException(message)
    with TemporaryDirectory() as folder:
        found = [name for name in names or NAMES if not _search(name, seconds, corpus or Path(folder))]
    for name in found:
        click.echo(f"{name}: an input was found, see {FINDS / name}")
    sys.exit(bool(found))


def _search(name: str, seconds: int, corpus: Path) -> bool:
    """Return True if the time ended before an input was found."""
    chosen = target(name)
    learned, finds = corpus / name, FINDS / name
    for folder in (learned, finds):
        folder.mkdir(parents=True, exist_ok=True)
    for data in (*chosen.seeds, *chosen.finds()):
        (learned / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    click.echo(f"== {name}")
    limits = (f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096")
    output = ("-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={finds}/")
    command = (sys.executable, "-m", "tests.lab.fuzz.command", name, *limits, *output, str(learned))
    return subprocess.run(command, check=False).returncode == 0


def _engine() -> None:
    """One search, in a process of its own, because the engine ends it with the process."""
    import atheris  # noqa: PLC0415 (only a search by hand needs it)

    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=[*_INSTRUMENTED], enable_loader_override=False):
        chosen = target(name)

    def change(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311 (a search, not a secret)
        if not chosen.words or random.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return mutated(data, chosen.words, random)[:longest]

    atheris.Setup([sys.argv[0], *options], chosen.check, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    _engine()
