"""`python -m tests.lab fuzz`: look for inputs that break a promise."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from .target import FINDS, NAMES, target


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES), metavar="[TARGET]...")
@click.option("--seconds", default=60, show_default=True, help="How long each target is searched.")
@click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to keep what the search has learned, for the next one; nowhere if not said.",
)
def main(names: Sequence[str], seconds: int, corpus: Path | None) -> None:
    """Search each TARGET, or all of them: exit code 1 when something was found."""
    if not find_spec("atheris"):
        message = "the engine is not installed: pip install '.[fuzz]'"
        raise click.ClickException(message)
    with TemporaryDirectory() as folder:
        found = [name for name in names or NAMES if not _search(name, seconds, corpus or Path(folder))]
    for name in found:
        click.echo(f"{name}: something was found; it lies in {FINDS / name}")
    sys.exit(bool(found))


def _search(name: str, seconds: int, corpus: Path) -> bool:
    """Whether the time was over before anything was found."""
    chosen = target(name)
    learned, finds = corpus / name, FINDS / name
    for folder in (learned, finds):
        folder.mkdir(parents=True, exist_ok=True)
    for data in (*chosen.seeds, *chosen.finds()):
        (learned / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    click.echo(f"== {name}")
    limits = (f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096")
    words = ("-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={finds}/")
    command = (sys.executable, "-m", "tests.lab.fuzz.search", name, *limits, *words, str(learned))
    return subprocess.run(command, check=False).returncode == 0
