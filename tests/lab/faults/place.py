"""A place of our own, where packets can be dropped, names can vanish and disks can be full.

What is done there is seen by nobody outside, and is gone with the last process that lives there.
"""

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.benchmarks.network import move_to_own_network

_OWN_MOUNTS: Final = 0x2_0000
_NOBODY_ANSWERS: Final = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a campaign keeps its things, and what can be done there."""

    folder: Path
    own_network: bool = False
    own_mounts: bool = False
    hosts: Path | None = None
    """The file by which names are resolved here, ours to write."""


def moved_in(folder: Path) -> Place:
    """Move to a place of our own, as far as we may; to be called before anything is started."""
    network = move_to_own_network()
    mounts = os.geteuid() == 0 and ctypes.CDLL(None).unshare(_OWN_MOUNTS) == 0
    mounts = mounts and mount("--make-rprivate", "/")
    return Place(
        folder=folder, own_network=network, own_mounts=mounts, hosts=_own_hosts(folder) if mounts else None
    )


def mount(*arguments: str) -> bool:
    """Mount something; whether it could be done."""
    return _ran("mount", *arguments)


def unmount(folder: Path) -> None:
    """Take away what is mounted there, also when somebody still holds a file of it open."""
    assert _ran("umount", "--lazy", str(folder)), folder


def drop_packets(port: int, *, begin: bool) -> None:
    """Let everything vanish that goes to this port or comes from it, or no longer."""
    for end in ("--sport", "--dport"):
        change = "--insert" if begin else "--delete"
        rule = ("INPUT", "--protocol", "tcp", end, str(port), "--jump", "DROP")
        assert _ran("iptables", "--wait", change, *rule), rule


def _own_hosts(folder: Path) -> Path | None:
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_bytes(Path("/etc/hosts").read_bytes())
    resolver.write_text(_NOBODY_ANSWERS, encoding="ascii")
    done = [mount("--bind", str(ours), f"/etc/{ours.name}") for ours in (hosts, resolver)]
    return hosts if all(done) else None


def _ran(program: str, *arguments: str) -> bool:
    found = shutil.which(program)
    if found is None:
        return False
    return subprocess.run([found, *arguments], check=False, capture_output=True).returncode == 0
