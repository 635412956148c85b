"""Namespaces of our own in which packets can be dropped, disks can fill up and names can disappear.

Nothing outside sees it, and it ends with the last process inside. Without root most of it is not available.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LAST_PID: Final = Path("/proc/sys/kernel/ns_last_pid")
_NETWORK: Final = 0x4000_0000
_MOUNTS: Final = 0x2_0000
_DISK_SIZE: Final = "64m"
_NO_NAMES: Final = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Where an experiment keeps its files, and what can be isolated there."""

    folder: Path
    own_network: bool = False
    own_mounts: bool = False
    hosts: Path | None = None
    """The file that resolves host names here, if it is ours to write."""


def isolate(folder: Path) -> Isolation:
    """Enter namespaces of our own, as far as permitted; to be called before anything is started."""
    network = own_network()
    mounts = os.geteuid() == 0 and ctypes.CDLL(None).unshare(_MOUNTS) == 0
    mounts = mounts and mount("--make-rprivate", "/")
    hosts = _own_hosts(folder) if mounts else None
    return Isolation(folder=folder, own_network=network, own_mounts=mounts, hosts=hosts)


def own_network() -> bool:
    """Enter a network of our own with loopback only; False if that is not possible."""
    tools = [shutil.which(name) for name in ("ip", "iptables")]
    if os.geteuid() != 0 or not all(tools) or ctypes.CDLL(None).unshare(_NETWORK) != 0:
        return False
    return _run("ip", "link", "set", "lo", "up") and _run("iptables", "--list", "INPUT")


def in_own_pids(*command: str) -> Sequence[str]:
    """This command in a namespace where the next pid can be chosen."""
    unshare = shutil.which("unshare") or "unshare"
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user", "--keep-caps")
    return (unshare, *user, "--pid", "--fork", "--kill-child", "--mount-proc", *command)


def no_own_pids() -> str | None:
    """Why such a namespace is not possible here; None if it is."""
    command = in_own_pids("/bin/sh", "-c", f"echo 1000 > {LAST_PID}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else None


def mount(*arguments: str) -> bool:
    """Mount a file system; return whether it worked."""
    return _run("mount", *arguments)


def mount_disk(folder: Path) -> bool:
    """Mount a small disk on this folder; return whether it worked."""
    return mount("-t", "tmpfs", "-o", f"size={_DISK_SIZE}", "tmpfs", str(folder))


def unmount(folder: Path) -> None:
    """Unmount this folder, even if a process has a file of it open."""
    assert _run("umount", "--lazy", str(folder)), folder


def drop_packets(*match: str, begin: bool) -> None:
    """Drop every packet that iptables matches in this way, or stop dropping them."""
    rule = ("iptables", "--wait", "--insert" if begin else "--delete", "INPUT", *match, "--jump", "DROP")
    assert _run(*rule), rule


def _own_hosts(folder: Path) -> Path | None:
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_bytes(Path("/etc/hosts").read_bytes())
    resolver.write_text(_NO_NAMES, encoding="ascii")
    done = [mount("--bind", str(ours), f"/etc/{ours.name}") for ours in (hosts, resolver)]
    return hosts if all(done) else None


def _run(program: str, *arguments: str) -> bool:
    found = shutil.which(program)
    if found is None:
        return False
    return subprocess.run([found, *arguments], check=False, capture_output=True).returncode == 0
