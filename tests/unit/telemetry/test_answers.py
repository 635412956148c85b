"""An answer is made once for all who ask within some seconds."""

import asyncio
from itertools import count

import pytest

from reaper.telemetry.http import routes as answers
from reaper.telemetry.http.routes import ResponseCache
from tests.unit.service.build import Clock


class Maker:
    """Makes answers, each another one, when it is let."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.numbers = count(1)
        self.let = asyncio.Event()
        if at_once:
            self.let.set()

    async def __call__(self, question: str) -> str:
        number = next(self.numbers)
        await self.let.wait()
        return f"{question} {number}"


def test_the_same_answer_serves_until_it_is_too_old() -> None:
    async def scene() -> list[str]:
        clock = Clock()
        kept = ResponseCache(Maker(), seconds=2, clock=clock)
        said = [await kept.get("a"), await kept.get("a")]
        clock.passes(1.9)
        said.append(await kept.get("a"))
        clock.passes(0.1)
        return [*said, await kept.get("a"), await kept.get("b")]

    assert asyncio.run(scene()) == ["a 1", "a 1", "a 1", "a 2", "b 3"]


def test_who_comes_while_it_is_being_made_waits_for_that_one_also_when_the_first_has_left() -> None:
    async def scene() -> str:
        maker = Maker(at_once=False)
        kept = ResponseCache(maker, seconds=2)
        first = asyncio.create_task(kept.get("a"))
        second = asyncio.create_task(kept.get("a"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        maker.let.set()
        return await second

    assert asyncio.run(scene()) == "a 1"


def test_questions_without_end_are_answered_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MAX_KEPT", 3)

    async def scene() -> int:
        clock = Clock()
        kept = ResponseCache(Maker(), seconds=2, clock=clock)
        said = [await kept.get(str(number)) for number in range(10)]
        assert said[-1] == "9 10"
        assert len(kept._kept) == 3
        clock.passes(2)
        await kept.get("new")
        assert await kept.get("new") == "new 11"
        return len(kept._kept)

    assert asyncio.run(scene()) == 1


def test_an_answer_that_cannot_be_made_is_tried_again_later() -> None:
    async def scene() -> None:
        clock = Clock()

        async def fails(_: str) -> str:
            raise ZeroDivisionError

        kept = ResponseCache(fails, seconds=2, clock=clock)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await kept.get("a")
            clock.passes(2)

    asyncio.run(scene())
