"""How far it is, for whoever watches on a terminal; stdout is for the answer."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, size: float) -> Iterator[Callable[[float], None]]:
    """A bar that is told of each step, and is gone when it is over; nothing for nobody."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 (only where somebody watches)
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=size or 1)
        yield lambda step: bar.advance(task, step)
