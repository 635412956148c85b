"""Whoever reaches the port cannot keep the reaper from its work, nor a probe from its answer."""

import json
import resource
from pathlib import Path
from typing import Final
from urllib.error import URLError

from reaper.telemetry.http.server import MAX_CONNECTIONS
from tests.lab.world.observe import memory
from tests.postgres.clients import Clients
from tests.postgres.sandbox import Role
from tests.postgres.waiting import until

from .command import Reaper
from .policies import FILE, leaked, policy_file
from .service import ANYWHERE, RECORD, Service
from .siege import CROWD, Siege

FILES: Final = 256
"""So many files and sockets a service has on a frugal host; the crowd is four times as many."""
MIB: Final = 48.0
ATTACKS: Final = {
    "who say nothing": (b"", b""),
    "who say a header letter by letter": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx: ", b"x"),
    "whose header has no end": (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nx: ", b"x" * 8_192),
    "whose path has no end": (b"GET /", b"x" * 8_192),
    "whose body comes letter by letter": (
        b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"x",
    ),
    "who ask and do not read": (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, b""),
    "who ask for the status page and do not read": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, b""),
    "who ask for the status page and read": (b"GET /?pause=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "who ask for servers that are not there": (
        b"GET /usage?server=" + b"x" * 8_192 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
    ),
    "who talk no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100),
}


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


def test_a_thousand_visitors_keep_neither_the_cycles_nor_a_probe_from_their_work(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = Service(reaper.start("run", *ANYWHERE, *RECORD, "--log-level", "debug", before=few_files))
    service.life.logged("cycle.quiet")
    before = memory(service.life.pid).rss

    with Siege(service.life.logged("http.listening")["at"], *ATTACKS.values()) as siege:
        until(lambda: siege.came >= 2 * CROWD)
        leak = clients.open(role=app)
        until(leak.left)
        until(lambda: answers(service))
        until(lambda: answers(service, "usage"))
        most = max(memory(service.life.pid).rss, before)
        files = len(list(Path(f"/proc/{service.life.pid}/fd").iterdir()))

    assert most - before < MIB
    assert files < 2 * MAX_CONNECTIONS
    done = service.life.end()
    assert done.code == 0
    assert [line for line in done.err.splitlines() if json.loads(line)["level"] in {"warning", "error"}] == []


def answers(service: Service, page: str = "livez") -> bool:
    """Whether a probe that comes now is answered."""
    try:
        return service.ask(page).status == 200
    except (URLError, ConnectionError, TimeoutError):
        return False


def test_out_of_files_it_says_so_in_its_log_and_in_no_other_words(
    reaper: Reaper, app: Role, clients: Clients
) -> None:
    reaper.write(FILE, policy_file(leaked(app)))
    service = Service(
        reaper.start("run", *ANYWHERE, *RECORD, "--log-level", "debug", before=hardly_any_files)
    )
    service.life.logged("cycle.quiet")

    with Siege(service.life.logged("http.listening")["at"], *ATTACKS.values()):
        complaint = service.life.logged("library.warning")
        leak = clients.open(role=app)
        until(leak.left)
        done = service.life.end()

    assert "Too many open files" in complaint["why"]
    assert done.code == 0
    assert len(done.log) == len(done.err.splitlines())


def hardly_any_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_CONNECTIONS, MAX_CONNECTIONS))


def test_it_opens_as_many_files_as_the_host_grants(reaper: Reaper, app: Role) -> None:
    def usual() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, 4 * FILES))

    reaper.write(FILE, policy_file(leaked(app)))
    life = reaper.start("run", *ANYWHERE, *RECORD, before=usual)
    life.logged("server.connected")

    assert resource.prlimit(life.pid, resource.RLIMIT_NOFILE) == (4 * FILES, 4 * FILES)
