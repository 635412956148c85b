"""Answers that are made once for all who ask within some seconds, however many they are."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from starlette.responses import Response

_MOST: Final = 256
"""So many answers are kept at once; questions beyond are answered each time."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def as_json(document: object) -> Response:
    """The document in ASCII: who fetches it with curl has a terminal, and names are as clients wrote them."""
    return Response(json.dumps(document), media_type="application/json")


class Answers(Generic[K, V]):
    """Makes an answer when the last one to the same question is too old, one at a time for each question."""

    def __init__(
        self,
        make: Callable[[K], Awaitable[V]],
        *,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._clock = clock
        self._made: dict[K, tuple[float, asyncio.Task[V]]] = {}

    async def to(self, question: K) -> V:
        """The answer; whoever asks while it is being made waits for that one."""
        now = self._clock()
        known = self._made.get(question)
        if known is None or known[0] <= now:
            if len(self._made) >= _MOST:
                self._made = {key: held for key, held in self._made.items() if held[0] > now}
            known = now + self._seconds, asyncio.ensure_future(self._make(question))
            if len(self._made) < _MOST:
                self._made[question] = known
        # A visitor who leaves does not take the answer away from the others.
        return await asyncio.shield(known[1])
