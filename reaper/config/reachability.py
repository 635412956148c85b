"""Policies that never decide, because one above them takes every session that they match.

Only what is certain is told: a policy covers another when each of its conditions is met by every session
that meets the other's. A file that would take forever to compare is compared as far as patience goes.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from reaper.config.labels import EVERY_SERVER, Only
from reaper.config.mistakes import Finding, quoted
from reaper.config.patterns import is_literal
from reaper.policy.match import Match
from reaper.policy.rules import GROUP_KEYS, Mode, Policy
from reaper.policy.selector import NO_KEYS, From, Glob, Selector

_PATIENCE: Final = 2_000_000
"""Patterns that are held against each other; a file that people write needs a few thousand."""


Patterns = tuple[Glob | From, ...]


class _List(NamedTuple):
    spelled: Mapping[str, Glob | From]
    wild: Sequence[Glob | From]
    """Those that can hold more than themselves."""


class _Comparison:
    """Remembers each list by its spellings, and counts down; after that nothing is certain any more."""

    def __init__(self) -> None:
        self._left = _PATIENCE
        self._lists: dict[int, _List] = {}

    def is_within(self, narrow: Patterns, wide: Patterns) -> bool:
        """Whether each of these fits nobody whom none of the others fits."""
        ours, theirs = self._list(narrow), self._list(wide)
        return all(
            any(self._lasts() and _holds(other, ours.spelled[text]) for other in theirs.wild)
            for text in ours.spelled.keys() - theirs.spelled.keys()
        )

    def _list(self, patterns: Patterns) -> "_List":
        # By identity: the list is as old as its policy, and to hash it would take as long as to compare it.
        if id(patterns) not in self._lists:
            self._lists[id(patterns)] = _List(
                {str(pattern): pattern for pattern in patterns},
                [one for one in patterns if not (isinstance(one, Glob) and is_literal(one.text))],
            )
        return self._lists[id(patterns)]

    def _lasts(self) -> bool:
        self._left -= 1
        return self._left >= 0


def unreachable(policies: Sequence[Policy], only: Mapping[str, Only]) -> Iterator[Finding]:
    """Each policy that one above it leaves nothing to, on any server, at its name."""
    comparison = _Comparison()
    for number, later in enumerate(policies):
        concerned = only.get(later.name, EVERY_SERVER)
        rivals = (one for one in policies[:number] if only.get(one.name, EVERY_SERVER).holds(concerned))
        above = next((earlier for earlier in rivals if _covers(earlier, later, comparison)), None)
        if above:
            what = f"unreachable: {quoted(above.name)} above takes everything that this one matches"
            yield Finding(("policies", number, "name"), what, "move it up or delete it")


def _covers(earlier: Policy, later: Policy, comparison: _Comparison) -> bool:
    return (
        _same_lane(earlier, later)
        and _rests_no_more(earlier, later)
        and earlier.allowlist in (NO_KEYS, later.allowlist)
        and earlier.despite >= later.despite
        and _asks_no_more(earlier.match, later.match)
        and _is_as_wide(earlier.match.selector, later.match.selector, comparison)
    )


def _same_lane(earlier: Policy, later: Policy) -> bool:
    """Whether the two ever compete: a rehearsal takes nothing from an enforcing policy."""
    if Mode.OFF in (earlier.mode, later.mode):
        return False
    return earlier.mode is Mode.ENFORCE or later.mode is Mode.DRY_RUN


def _rests_no_more(earlier: Policy, later: Policy) -> bool:
    """Keep, cap, pace and brake are no rest: what they spare is spared by that policy, not handed down."""
    used = earlier.when.connections_used if earlier.when else 0
    used_by_later = later.when.connections_used if later.when else 0
    return used <= used_by_later and earlier.during in ((), later.during)


def _asks_no_more(earlier: Match, later: Match) -> bool:
    limits = (
        (earlier.idle_for, later.idle_for),
        (earlier.transaction_for, later.transaction_for),
        (earlier.connected_for, later.connected_for),
        (earlier.running_for, later.running_for),
        (earlier.holds_back_vacuum, later.holds_back_vacuum),
    )
    return (
        set(earlier.states) >= set(later.states)
        and later.blocking >= earlier.blocking
        and all(mine is None or (other is not None and mine <= other) for mine, other in limits)
    )


def _is_as_wide(earlier: Selector, later: Selector, comparison: _Comparison) -> bool:
    for key in GROUP_KEYS:
        wide, narrow = getattr(earlier, key), getattr(later, key)
        if wide and not (narrow and comparison.is_within(narrow, wide)):
            return False
    return True


def _holds(wide: Glob | From, narrow: Glob | From) -> bool:
    if isinstance(wide, Glob):
        literal = isinstance(narrow, Glob) and is_literal(narrow.text)
        return wide == narrow or (literal and wide.matches(str(narrow)))
    if not isinstance(narrow, From) or wide.network is None or narrow.network is None:
        return wide == narrow
    return _is_inside(narrow.network, wide.network)


def _is_inside(narrow: IPv4Network | IPv6Network, wide: IPv4Network | IPv6Network) -> bool:
    if isinstance(narrow, IPv4Network):
        return isinstance(wide, IPv4Network) and narrow.subnet_of(wide)
    return isinstance(wide, IPv6Network) and narrow.subnet_of(wide)
