"""The short form of every search: the seeds, earlier finds, and small changes of them."""

from random import Random
from typing import Final

import pytest

from .command import NAMES, target
from .inputs import mutated

_CHANGES: Final = 80


@pytest.mark.parametrize("name", NAMES)
def test_no_seed_and_no_find_breaks_a_promise(name: str) -> None:
    chosen = target(name)
    assert chosen.seeds
    for data in (*chosen.seeds, *chosen.finds()):
        chosen.check(data)


@pytest.mark.parametrize("name", NAMES)
def test_no_small_change_breaks_a_promise(name: str) -> None:
    chosen = target(name)
    random = Random(name)  # noqa: S311 (the same changes in every run)
    for _ in range(_CHANGES):
        chosen.check(mutated(random.choice((*chosen.seeds, *chosen.finds())), chosen.words, random))
