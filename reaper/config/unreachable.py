"""Policies that never decide, because one above them decides about every session that they match.

Only what is certain is reported: a policy covers another one if each of its conditions holds for every
session for which the other's hold.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from reaper.config.errors import Issue, quoted
from reaper.config.model import AGES
from reaper.config.patterns import is_literal
from reaper.config.settings import EVERY_SERVER, LabelSelector
from reaper.policy.match import Match
from reaper.policy.rules import GROUP_KEYS, Mode, Policy
from reaper.policy.selector import NO_KEYS, From, Glob, Selector

MOST_PATTERNS: Final = 2_000
"""Of all policies: a longer file was generated, and comparing each with each would take seconds."""

Pattern = Glob | From


def unreachable(policies: Sequence[Policy], labels: Mapping[str, LabelSelector]) -> Iterator[Issue]:
    """Each policy that is covered by one above it on every server, at its name."""
    if sum(len(getattr(one.match.selector, key)) for one in policies for key in GROUP_KEYS) > MOST_PATTERNS:
        return
    for number, later in enumerate(policies):
        servers = labels.get(later.name, EVERY_SERVER)
        for earlier in policies[:number]:
            if labels.get(earlier.name, EVERY_SERVER).includes(servers) and _covers(earlier, later):
                matched = "decides about every session that this one matches"
                what = f"unreachable: {quoted(earlier.name)} above {matched}"
                yield Issue(("policies", number, "name"), what, "move it up or delete it")
                break


def _covers(earlier: Policy, later: Policy) -> bool:
    return (
        _competes(earlier, later)
        and _acts_whenever(earlier, later)
        and earlier.allowlist in (NO_KEYS, later.allowlist)
        and earlier.despite >= later.despite
        and _matches_whenever(earlier.match, later.match)
        and _is_as_wide(earlier.match.selector, later.match.selector)
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


def _is_as_wide(earlier: Selector, later: Selector) -> bool:
    pairs = ((getattr(earlier, key), getattr(later, key)) for key in GROUP_KEYS)
    return all(
        not wide or (narrow and all(any(covers(one, other) for one in wide) for other in narrow))
        for wide, narrow in pairs
    )


def covers(wide: Pattern, narrow: Pattern) -> bool:
    """Return True if it is certain that one pattern matches all that the other one matches."""
    if isinstance(wide, Glob) and isinstance(narrow, Glob):
        return wide == narrow or (is_literal(narrow.text) and wide.matches(narrow.text))
    if wide == narrow or isinstance(wide, Glob) or isinstance(narrow, Glob) or not wide.network:
        return wide == narrow
    # A network of another version of IP is never a part of it.
    return (
        narrow.network is not None
        and narrow.network.version == wide.network.version
        and wide.network.prefixlen <= narrow.network.prefixlen
        and narrow.network.network_address in wide.network
    )
