"""The real `reaper run` in a folder of its own, with its log and its audit log in files."""

import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any, Final, NamedTuple, Self

from reaper.telemetry import events
from tests.postgres.waiting import until
from tests.system.command import Done, Life, Reaper
from tests.system.policies import FILE, Keys, policy_file

from .observe import LogLine, ReaperLog, cpu_seconds

CYCLES: Final = (events.CYCLE_QUIET, events.CYCLE_ACTED)
NO_LIMITS: Final[Keys] = {"max_per_cycle": 1_000, "safety_limit": "none", "refill_guard": "none"}
"""Policy keys that switch the limits and the refill guard off: clients of the lab reconnect at once."""
PORT: Final = "127.0.0.1:0"
"""An address to listen on; the kernel chooses the port."""
_PATIENCE: Final = 120.0
_TAIL: Final = 2_000
_TIMEOUT: Final = 10.0
_OK: Final = 200
_COUNT: Final = "pg_reaper_cycle_seconds_count"


def policy(name: str, idle_for: float, *, mode: str = "enforce", **keys: Any) -> Keys:  # noqa: ANN401
    """A policy for sessions that were idle for this many seconds; keys of `match` are given by name.

    Keys of the policy itself are given as `keys={...}`.
    """
    own = keys.pop("keys", {})
    match = {"state": ["idle"], "idle_for": f"{round(1000 * idle_for)}ms", **keys}
    return {"name": name, "mode": mode, "match": match, **own}


def rules(
    dsn: str,
    *policies: Keys,
    interval: float,
    min_interval: float = 0.25,
    name: str = "server",
    protect: Keys | None = None,
) -> str:
    """A policy file for one server."""
    server = {"name": name, "dsn": dsn}
    return policy_file(
        *policies,
        interval=f"{interval:g}s",
        min_interval=f"{round(1000 * min_interval)}ms",
        servers=[server],
        protect=protect,
    )


class HttpResponse(NamedTuple):
    """One response; status 0 if there was no answer."""

    status: int
    text: str


class ReaperProcess:
    """A reaper that can be started, stopped and started again."""

    def __init__(
        self,
        folder: Path,
        rules: str,
        *options: str,
        listen: str = "off",
        log_level: str = "info",
        audit: str = "audit.jsonl",
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.audit = folder / audit
        self.log = ReaperLog(folder / "log.jsonl")
        self.log.path.touch()
        self.started_at = 0.0
        self._options = ("--log-level", log_level, "--audit-log", audit, "--listen", listen, *options)
        self._command = Reaper(folder)
        self._process: Life | None = None
        self._address = ""
        self._logged_before = 0
        self._command.write(FILE, rules)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._command.__exit__()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the next start."""
        return self._command.environment

    @property
    def process(self) -> Life:
        assert self._process, "the reaper was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        """Return True if it was started and has not ended."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        self._address, self._logged_before, self.started_at = "", len(self.log.events), time.time()
        with self.log.path.open("ab") as log:
            self._process = self._command.start("run", *self._options, stderr=log.fileno())

    def send(self, number: Signals) -> None:
        self.process.send(number)

    def end(self, number: Signals = SIGTERM) -> int:
        """Send it a signal that ends it; return its exit code."""
        return self.process.end(number).code

    def stop(self) -> int:
        """Stop it as a service manager does; return the number of cycles that it ran."""
        self.end()
        return sum(int(event.fields["cycles"]) for event in self.log.named(events.STOPPED))

    def wait(self, *names: str, since: float = 0.0) -> LogLine:
        """The first log event with one of these names since then; AssertionError if there is none in time."""

        def found() -> list[LogLine]:
            running = self.running  # before the log is read, because the last lines may be the ones
            matching = self.log.named(*names, since=since)
            assert matching or running, f"ended without {names}: {self.log.path.read_text('utf-8')[-_TAIL:]}"
            return matching

        return until(found, within=_PATIENCE)[0]

    def command(self, *arguments: str) -> Done:
        """Run another `reaper` command in its folder."""
        return self._command(*arguments)

    def cpu(self) -> float:
        """The CPU seconds of its process."""
        return cpu_seconds(self.pid)

    # Its HTTP port

    @property
    def address(self) -> str:
        """HOST:PORT where it listens; empty before that."""
        if not self._address:
            # Not by time: a fault may have set the clock that dates the log.
            now = self.log.events[self._logged_before :]
            self._address = next((event.fields["at"] for event in now if event.name == events.SERVES), "")
        return self._address

    def get(self, path: str) -> HttpResponse:
        """Send a GET request."""
        address = self.address
        if not address:
            return HttpResponse(0, "it does not listen yet")
        connection = HTTPConnection(address, timeout=_TIMEOUT)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return HttpResponse(answer.status, answer.read().decode())
        except (OSError, HTTPException) as error:
            return HttpResponse(0, str(error))
        finally:
            connection.close()

    def answers(self, path: str = "/readyz") -> float:
        """Wait until this path answers 200; return the seconds that it took."""
        began = time.monotonic()

        def is_ok() -> bool:
            assert self.running, f"the reaper ended before {path} answered 200"
            return self.get(path).status == _OK

        until(is_ok, within=_PATIENCE, every=0.1)
        return time.monotonic() - began

    def cycles_by_metrics(self) -> int:
        """The number of successful cycles, over all servers."""
        lines = self.get("/metrics").text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(_COUNT))
