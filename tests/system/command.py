"""The real command in an environment of its own, as a shell or a service manager starts it."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final, NamedTuple, Self

from tests.postgres.waiting import PATIENCE, until

Fields = Mapping[str, Any]

_LONGEST: Final = 2 * PATIENCE


def find(name: str) -> str:
    """A program of the environment that these tests run in."""
    ours = Path(sysconfig.get_path("scripts"), name)
    found = str(ours) if ours.is_file() else shutil.which(name)
    assert found, f"{name} is not installed here"
    return found


class Done(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 (whatever the command printed)
        """Its output, which is one JSON document."""
        return json.loads(self.out)

    @property
    def events(self) -> list[Fields]:
        """Its output, which is the record."""
        return parsed(self.out.splitlines())

    @property
    def log(self) -> list[Fields]:
        """What it logged as JSON."""
        return parsed(self.err.splitlines())


def parsed(lines: Iterable[str]) -> list[Fields]:
    """The lines that are JSON objects."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def holds(fields: Fields, wanted: Fields) -> bool:
    """Whether all that is wanted stands there."""
    return all(fields.get(key) == value for key, value in wanted.items())


class Life:
    """One life of a command that runs until it is told to stop."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self.program = program
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            Thread(target=_read, args=(stream, lines), daemon=True)
            for stream, lines in ((program.stdout, self.out), (program.stderr, self.err))
            if stream
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its pid on this host."""
        return self.program.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.program.poll() is None

    def logged(self, event: str, *, times: int = 1, **wanted: object) -> Fields:
        """Wait until it has logged such an event so many times; the last one."""
        return self._await(self.err, {"event": event, **wanted}, times)

    def recorded(self, event: str, *, times: int = 1, **wanted: object) -> Fields:
        """Wait until such an event stands in the record on its stdout so many times; the last one."""
        return self._await(self.out, {"event": event, **wanted}, times)

    def has_logged(self, event: str, **wanted: object) -> bool:
        """Whether it has logged such an event by now."""
        return any(holds(line, {"event": event, **wanted}) for line in parsed(self.err))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> Done:
        """Send it a signal, and wait for the end."""
        self.send(number)
        return self.ended()

    def ended(self) -> Done:
        """Wait for the end."""
        code = self.program.wait(_LONGEST)
        self._hang_up()
        return Done(code, "".join(self.out), "".join(self.err))

    def close(self) -> None:
        """End it at once, if it is still there."""
        self.program.kill()
        self.program.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        for reader in self._readers:
            reader.join()
        for stream in (self.program.stdin, self.program.stdout, self.program.stderr):
            if stream:
                stream.close()

    def _await(self, lines: Sequence[str], wanted: Fields, times: int) -> Fields:
        def found() -> Fields | None:
            ended = not self.running  # asked before the lines are, so that the last ones are not missed
            matching = [fields for fields in parsed(list(lines)) if holds(fields, wanted)]
            if len(matching) >= times:
                return matching[times - 1]
            assert not ended, f"ended with {self.program.returncode} before {wanted}: {self.err}"
            return None

        try:
            return until(found, within=PATIENCE) or {}
        except TimeoutError:
            message = f"no {wanted} in {lines}; the log: {self.err}"
            raise AssertionError(message) from None


def _read(stream: IO[str], lines: list[str]) -> None:
    with suppress(ValueError):  # closed meanwhile
        for line in stream:
            lines.append(line)  # noqa: PERF402 (one by one, as they come)


class Reaper:
    """Starts `reaper` in a folder of its own, knowing nothing of the environment that the tests run in."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.program = find("reaper")
        self._lives: list[Life] = []
        home = folder / "home"
        home.mkdir()
        path = os.pathsep.join([str(Path(self.program).parent), "/usr/local/bin", "/usr/bin", "/bin"])
        self.environment = {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8", **environment}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for life in self._lives:
            life.close()

    def __call__(self, *arguments: str, stdin: str | None = None, **environment: str) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [self.program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST,
            cwd=self.folder,
            env={**self.environment, **environment},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(
        self,
        *arguments: str,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        before: Callable[[], None] | None = None,
        **environment: str,
    ) -> Life:
        """Start a command that goes on until it is stopped."""
        program = subprocess.Popen(
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            cwd=self.folder,
            env={**self.environment, **environment},
            preexec_fn=before,  # noqa: PLW1509 (the tests' only threads read pipes)
        )
        life = Life(program)
        self._lives.append(life)
        return life

    def write(self, name: str, text: str) -> Path:
        """A file in its folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def record(self, name: str = "audit.jsonl") -> list[Fields]:
        """The events in the record that it wrote to this file."""
        path = self.folder / name
        text = path.read_text(encoding="ascii") if path.exists() else ""
        return parsed(text[: text.rfind("\n") + 1].splitlines())

    def recorded(self, event: str, *, name: str = "audit.jsonl", **wanted: object) -> Fields:
        """Wait until such an event stands in the file; the first one."""
        wanted = {"event": event, **wanted}

        def found() -> Fields | None:
            return next((fields for fields in self.record(name) if holds(fields, wanted)), None)

        return until(found) or {}
