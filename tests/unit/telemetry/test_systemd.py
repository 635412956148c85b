"""Notifications to the service manager, on a real socket of its kind."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.telemetry.systemd import Systemd


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def received(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_the_manager_is_notified_of_each_state(manager: socket.socket) -> None:
    systemd = Systemd(manager.getsockname())
    systemd.ready()
    assert received(manager) == ["READY=1"]
    systemd.alive()
    assert received(manager) == ["WATCHDOG=1"]
    systemd.stopping()
    assert received(manager) == ["STOPPING=1"]


def test_a_reload_carries_the_monotonic_time_that_the_manager_compares(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    Systemd(manager.getsockname()).reloading()
    word, stamp = received(manager)

    assert word == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(1) // 1_000


def test_a_status_is_one_line(manager: socket.socket) -> None:
    Systemd(manager.getsockname()).status("3 servers,\nREADY=1\r\n  412 of 500\x1b[2J slots \ud800\u202e")

    assert received(manager) == [r"STATUS=3 servers, READY=1 412 of 500\x1b[2J slots \ud800\u202e"]


def test_an_address_in_the_abstract_namespace_works() -> None:
    name = f"reaper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(10)
        Systemd(f"@{name}").ready()
        assert received(listening) == ["READY=1"]


@pytest.mark.parametrize("address", [None, "missing"])
def test_without_a_manager_it_does_nothing(address: str | None, tmp_path: Path) -> None:
    Systemd(address and str(tmp_path / address)).ready()


def test_a_manager_that_does_not_read_blocks_nothing(manager: socket.socket) -> None:
    systemd = Systemd(manager.getsockname())
    patience = socket.socket.settimeout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "settimeout", lambda ours, _: patience(ours, 0))
        for _ in range(2_000):  # far more than its buffer takes
            systemd.alive()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
    ids=["no watchdog", "any process", "this process", "another process"],
)
def test_the_watchdog_is_for_the_named_process_and_children_do_not_inherit_the_variables(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], seconds: float | None
) -> None:
    for name, value in {"NOTIFY_SOCKET": "/run/nowhere", **variables}.items():
        monkeypatch.setenv(name, value)

    assert Systemd.from_environment().watchdog_seconds == seconds
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
