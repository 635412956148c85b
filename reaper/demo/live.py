"""The stage of a terminal: a view that is drawn anew several times a second, on a screen of its own."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from reaper.demo.frame import Frame
from reaper.demo.score import News, Score

_FRAMES_PER_SECOND: Final = 8


class LiveStage:
    """Shows frames, and gives the terminal back as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def tell(self, news: News) -> None:
        """Nothing: the next frame shows it."""

    @contextmanager
    def show(self, score: Score) -> Iterator[None]:
        """Draw from another thread, so that a busy moment of the story stops no clock."""
        with Live(
            Frame(score),
            console=self._console,
            screen=True,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def close_with(self, lines: Iterable[Text]) -> None:
        """Print the last words below whatever stood there before."""
        for line in lines:
            self._console.print(line, soft_wrap=True)
