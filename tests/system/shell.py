"""A shell in which README's commands work as they would for whoever copies them."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.postgres.waiting import PATIENCE

from .command import Done

# `reaper run` goes on until it is stopped, so it is: as soon as it has reached the server.
_PRELUDE: Final = """
reaper() {
    if [ "${1-}" != run ]; then
        command reaper "$@"
        return
    fi
    command reaper "$@" 2>run.log &
    until grep -q server.connected run.log; do
        kill -0 $! || { cat run.log >&2; exit 99; }
        sleep 0.05
    done
    kill -TERM $!
    wait $!
}
"""
_FOR_DOWNLOADS: Final = ("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "REQUESTS_")


def bash(
    script: str, *, folder: Path, environment: Mapping[str, str], patience: float = 2 * PATIENCE
) -> Done:
    """Run a script as it stands, in this folder and with nothing but this environment."""
    done = subprocess.run(
        [shutil.which("bash") or "/bin/bash", "-euo", "pipefail", "-c", f"{_PRELUDE}\n{script}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=patience,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a fresh login has: an empty home, this Python, and the way to the package index."""
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([sysconfig.get_path("scripts"), "/usr/local/bin", "/usr/bin", "/bin"])
    downloads = {name: value for name, value in os.environ.items() if name.startswith(_FOR_DOWNLOADS)}
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8", **downloads, **more}


def clone(checkout: Path, target: Path) -> Path:
    """What a clone of the repository would hold."""
    listed = subprocess.run(
        [shutil.which("git") or "git", "ls-files", "-z", "--cached"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        unwanted = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
        return Path(shutil.copytree(checkout, target, ignore=unwanted))
    for name in filter(None, listed.stdout.split("\0")):
        source, copy = checkout / name, target / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    return target
