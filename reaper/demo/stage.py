"""The stage: where the story is seen, on a terminal or as plain lines."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TextIO

from rich.text import Text

from reaper.demo.score import News, Score


class Stage(Protocol):
    """Shows the story."""

    def tell(self, news: News) -> None:
        """Something happened."""

    def show(self, score: Score) -> AbstractContextManager[None]:
        """Keep the view of the story up to date for as long as the block runs."""

    def close_with(self, lines: Iterable[Text]) -> None:
        """The last words, which stay."""


class PlainStage:
    """A line for each event, for pipes and files; no escape codes."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def tell(self, news: News) -> None:
        """Print the line."""
        self._print(f"{news.after:5.1f}s  {news.kind:10}  {news.text}".rstrip())

    def show(self, score: Score) -> AbstractContextManager[None]:  # noqa: ARG002 (lines show no state)
        """Nothing: the lines say it all."""
        return nullcontext()

    def close_with(self, lines: Iterable[Text]) -> None:
        """Print the lines without their style."""
        for line in lines:
            self._print(line.plain.rstrip())

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)
