"""Many servers on one machine: databases, few enough of them on each PostgreSQL that none looks crowded.

A reaper sees every session of a PostgreSQL, whichever database it is in. If all databases were on one, each
"server" would have as many sessions as there are servers; here each has as many as databases stand beside it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

from .ground import Ground

_AT_ONCE: Final = 4
_BYSTANDER: Final = "bystander"


class Park:
    """Starts as many PostgreSQLs as these servers need, and makes the databases."""

    def __init__(self, major: int, *, servers: int, on_each: int) -> None:
        self.sessions = on_each
        """What a reaper sees at each of them: the reaper's own for each database, bystanders for the rest."""
        grounds = -(-servers // on_each)
        self._grounds = [Ground(major, max_connections=str(2 * on_each + 20)) for _ in range(grounds)]
        self._databases = [min(on_each, servers - on_each * number) for number in range(grounds)]
        self._stack = ExitStack()
        self._dsns: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack, ThreadPoolExecutor(_AT_ONCE) as crew:
            for ground in crew.map(stack.enter_context, self._grounds):
                ground.role(_BYSTANDER)
            for dsns in crew.map(_databases, self._grounds, self._databases):
                self._dsns += dsns
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def some(self, count: int, stack: ExitStack) -> Sequence[str]:
        """The ways in to so many servers, each with its share of sessions as long as the stack lasts."""
        wanted = count
        for ground, databases in zip(self._grounds, self._databases, strict=True):
            here = min(databases, wanted)
            wanted -= here
            for _ in range(self.sessions - here if here else 0):
                stack.enter_context(psycopg.connect(make_conninfo(ground.server.dsn, user=_BYSTANDER)))
        return self._dsns[:count]


def _databases(ground: Ground, count: int) -> list[str]:
    return [ground.database(f"server {number}") for number in range(count)]
