"""Policies that never decide, because one above them decides about every session that they match.

Only what is certain is reported: a policy covers another one if each of its conditions holds for every
session for which the other's hold. The number of comparisons is bounded.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from reaper.config.errors import Issue, quoted
from reaper.config.model import AGES
from reaper.config.patterns import is_literal
from reaper.config.settings import EVERY_SERVER, LabelSelector
from reaper.policy.match import Match
from reaper.policy.rules import GROUP_KEYS, Mode, Policy
from reaper.policy.selector import NO_KEYS, From, Glob, Selector

MOST_COMPARISONS: Final = 2_000_000
"""Of one pattern with another; a file written by hand needs a few thousand."""

Pattern = Glob | From


class _Comparison:
    """Compares lists of patterns up to the bound, after which no list is within another."""

    def __init__(self) -> None:
        self._left = MOST_COMPARISONS

    def is_within(self, narrow: tuple[Pattern, ...], wide: tuple[Pattern, ...]) -> bool:
        """Return True if every value that the narrow patterns match is matched by the wide ones."""
        self._left -= len(narrow) + len(wide)
        if self._left < 0:
            return False
        same = {str(pattern) for pattern in wide}
        others = [pattern for pattern in wide if not _is_literal(pattern)]
        return all(
            str(pattern) in same or any(self._may_compare() and covers(other, pattern) for other in others)
            for pattern in narrow
        )

    def _may_compare(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _is_literal(pattern: Pattern) -> bool:
    return isinstance(pattern, Glob) and is_literal(pattern.text)


def unreachable(policies: Sequence[Policy], labels: Mapping[str, LabelSelector]) -> Iterator[Issue]:
    """Each policy that is covered by one above it on every server, at its name."""
    comparison = _Comparison()
    for number, later in enumerate(policies):
        servers = labels.get(later.name, EVERY_SERVER)
        candidates = (
            one for one in policies[:number] if labels.get(one.name, EVERY_SERVER).includes(servers)
        )
        above = next((earlier for earlier in candidates if _covers(earlier, later, comparison)), None)
        if above:
            what = (
                f"unreachable: {quoted(above.name)} above decides about every session that this one matches"
            )
            yield Issue(("policies", number, "name"), what, "move it up or delete it")


def _covers(earlier: Policy, later: Policy, comparison: _Comparison) -> bool:
    return (
        _competes(earlier, later)
        and _acts_whenever(earlier, later)
        and earlier.allowlist in (NO_KEYS, later.allowlist)
        and earlier.despite >= later.despite
        and _matches_whenever(earlier.match, later.match)
        and _is_as_wide(earlier.match.selector, later.match.selector, comparison)
    )


def _competes(earlier: Policy, later: Policy) -> bool:
    """A dry run hides no session from an enforcing policy."""
    if Mode.DISABLED in (earlier.mode, later.mode):
        return False
    return earlier.mode is Mode.ENFORCE or later.mode is Mode.DRY_RUN


def _acts_whenever(earlier: Policy, later: Policy) -> bool:
    """Limits do not matter: a session that a limit skips is not handed to the next policy."""
    used = earlier.when.connections_used if earlier.when else 0
    used_by_later = later.when.connections_used if later.when else 0
    return used <= used_by_later and earlier.during in ((), later.during)


def _matches_whenever(earlier: Match, later: Match) -> bool:
    limits = ((getattr(earlier, key), getattr(later, key)) for key in (*AGES, "holds_back_vacuum"))
    return (
        set(earlier.states) >= set(later.states)
        and later.blocking >= earlier.blocking
        and all(mine is None or (other is not None and mine <= other) for mine, other in limits)
    )


def _is_as_wide(earlier: Selector, later: Selector, comparison: _Comparison) -> bool:
    pairs = ((getattr(earlier, key), getattr(later, key)) for key in GROUP_KEYS)
    return all(not wide or (narrow and comparison.is_within(narrow, wide)) for wide, narrow in pairs)


def covers(wide: Pattern, narrow: Pattern) -> bool:
    """Return True if it is certain that one pattern matches all that the other one matches."""
    if isinstance(wide, Glob):
        return wide == narrow or (_is_literal(narrow) and wide.matches(str(narrow)))
    if not isinstance(narrow, From) or wide.network is None or narrow.network is None:
        return wide == narrow
    if isinstance(narrow.network, IPv4Network):
        return isinstance(wide.network, IPv4Network) and narrow.network.subnet_of(wide.network)
    return isinstance(wide.network, IPv6Network) and narrow.network.subnet_of(wide.network)
