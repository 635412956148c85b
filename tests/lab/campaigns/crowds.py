"""Crowds of sleepers, started and counted from here."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .sleepers import Habits, Told

ROOT: Final = Path(__file__).parents[3]


class Crowds:
    """A process for each crowd; they go on until they are asked to tell."""

    def __init__(self, *habits: Habits) -> None:
        self._habits = habits
        self._programs: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for habits in self._habits:
            command = [sys.executable, "-m", "tests.lab.campaigns.sleepers", habits.as_argument]
            program = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            self._programs.append(program)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self._programs:
            program.kill()
            program.wait()
            for stream in (program.stdin, program.stdout):
                assert stream
                stream.close()

    def check(self) -> None:
        """See that all of them are still there."""
        assert all(program.poll() is None for program in self._programs), "a crowd has ended by itself"

    def told(self) -> Mapping[str, Told]:
        """End them all; what the sessions of each crowd went through."""
        for program in self._programs:
            assert program.stdin
            program.stdin.close()
        told = dict[str, Told]()
        for habits, program in zip(self._habits, self._programs, strict=True):
            assert program.stdout
            told[habits.name] = Told(**json.load(program.stdout))
        return told
