"""The real `reaper run` in a folder of its own, with its log and its audit log in files."""

from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any, Final, Self

from reaper.telemetry import events
from tests.system.command import Done, Life, Reaper
from tests.system.policies import FILE, Keys, policy_file

from .log import LogEvent, ReaperLog

CYCLES: Final = (events.CYCLE_QUIET, events.CYCLE_ACTED)
NO_LIMITS: Final[Keys] = {"max_per_cycle": 1_000, "safety_limit": "none", "refill_guard": "none"}
"""Policy keys that switch the limits and the refill guard off: clients of the lab reconnect at once."""


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


class ReaperProcess:
    """A reaper that can be started, stopped and started again."""

    def __init__(
        self, folder: Path, rules: str, *options: str, log_level: str = "info", audit: str = "audit.jsonl"
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.audit = folder / audit
        self.log = ReaperLog(folder / "log.jsonl")
        self.log.path.touch()
        self._options = ("--log-level", log_level, "--audit-log", audit, *options)
        self._command = Reaper(folder)
        self._process: Life | None = None
        self.write_rules(rules)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._command.__exit__()

    def write_rules(self, rules: str) -> None:
        self._command.write(FILE, rules)

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
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        with self.log.path.open("ab") as log:
            self._process = self._command.start("run", *self._options, stderr=log.fileno())

    def send(self, number: Signals) -> None:
        self.process.send(number)

    def end(self, number: Signals = SIGTERM) -> int:
        """Send it a signal that ends it; return its exit code."""
        return self.process.end(number).code

    def stop(self) -> int:
        """Stop it as a service manager does; return how many cycles it ran."""
        self.end()
        return sum(int(event.fields["cycles"]) for event in self.log.named(events.STOPPED))

    def wait(self, *names: str, since: float = 0.0, within: float = 90.0) -> LogEvent:
        """The first log event with one of these names since then."""
        return self.log.wait(*names, since=since, within=within, running=lambda: self.running)

    def command(self, *arguments: str) -> Done:
        """Run another `reaper` command in its folder."""
        return self._command(*arguments)
