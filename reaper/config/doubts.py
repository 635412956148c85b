"""Warnings: what may be meant, and probably is not."""

from collections.abc import Iterator, Mapping, Sequence

from reaper.config.mistakes import Finding
from reaper.config.models import Head, Policy
from reaper.config.wide import every_address, repeated, selectors, twice
from reaper.policy.rules import Mode


def doubts(head: Head, policies: Mapping[int, Policy]) -> Iterator[Finding]:
    """Everything in a valid file that a person should look at once more."""
    placed = list(selectors(head, policies))
    yield from every_address(placed)
    yield from repeated(placed)
    for number, policy in policies.items():
        yield from _repeated_words(number, policy)
        if policy.mode == Mode.ENFORCE and policy.brake is None and policy.when is None:
            what = "nothing stops this policy from taking everybody at once"
            yield Finding(
                ("policies", number, "brake"), what, "write when: beside brake: off, or keep the brake"
            )


def _repeated_words(number: int, policy: Policy) -> Iterator[Finding]:
    at = ("policies", number)
    lists: dict[tuple[str, ...], Sequence[str]] = {
        ("match", "state"): policy.match.state or (),
        ("despite",): policy.despite or (),
        ("during",): [window.text for window in policy.during or ()],
        ("keep", "per"): policy.keep.per if policy.keep else (),
        ("cap", "per"): policy.cap.per if policy.cap else (),
    }
    for path, words in lists.items():
        seen: set[str] = set()
        for place, word in enumerate(words):
            if word in seen:
                yield twice((*at, *path, place), word)
            seen.add(word)
