"""What the service tells its manager: ready, how it stands, that it lives, reloads and ends."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from reaper.demo.server import EmbeddedServer
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Life, Reaper
from .policies import FILE, leaked, policy_file


class Manager:
    """The socket of a service manager, and what was said there."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while message := self._socket.recv(65_536):
            self.said.append(message.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as farewell:
            farewell.sendto(b"", str(self.path))
        self._listener.join()
        self._socket.close()

    def start(self, reaper: Reaper) -> Life:
        return reaper.start(
            "run", "--audit-log", "audit.jsonl", "--listen", "off", NOTIFY_SOCKET=str(self.path)
        )

    def hears(self, message: str, *, times: int = 1) -> None:
        until(lambda: self.said.count(message) >= times)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path)
    yield listening
    listening.close()


def test_it_is_ready_after_the_first_cycle_says_how_it_stands_and_that_it_lives(
    reaper: Reaper, app: Role, manager: Manager
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = manager.start(reaper)
    manager.hears("WATCHDOG=1", times=3)
    life.end()

    assert manager.said.count("READY=1") == 1
    assert any(said.endswith(" slots, 1 policy enforcing") for said in manager.said)
    manager.hears("STOPPING=1")
    assert "READY=1" not in manager.said[manager.said.index("STOPPING=1") :]


def test_a_server_that_is_away_keeps_nobody_from_being_ready(
    tmp_path: Path, own_server: EmbeddedServer, manager: Manager
) -> None:
    own_server.shut_down("immediate")
    with Reaper(tmp_path, REAPER_DSN=own_server.dsn) as reaper:
        reaper.write(FILE, policy_file(leaked(Role("app", ""))))
        manager.start(reaper)
        manager.hears("READY=1")
        until(lambda: any(said.endswith(" enforcing, 1 unreachable") for said in manager.said))


def test_a_reload_begins_and_ends_good_or_bad_and_a_bad_one_shows_in_the_status(
    reaper: Reaper, app: Role, manager: Manager
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    life = manager.start(reaper)
    manager.hears("READY=1")

    reaper.write(FILE, "version: 2\n")
    life.send(signal.SIGHUP)
    manager.hears("READY=1", times=2)
    until(lambda: any(said.endswith("the policy file on disk is refused") for said in manager.said))

    reaper.write(FILE, policy_file(leaked(app)))
    life.send(signal.SIGHUP)
    manager.hears("READY=1", times=3)
    until(lambda: any(said.endswith(" enforcing") for said in manager.said[-2:]))

    begun = [said for said in manager.said if said.startswith("RELOADING=1\nMONOTONIC_USEC=")]
    assert len(begun) == 2
