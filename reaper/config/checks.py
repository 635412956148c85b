"""Mistakes and warnings that no schema sees: policies that contradict themselves or never decide."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from reaper.config.errors import Issue, KeyPath, quoted
from reaper.config.model import AGES, URL_KEYS, HeadSection, MatchSection, PolicySection, SelectorSection
from reaper.config.patterns import is_literal, looks_secret
from reaper.config.settings import EVERY_SERVER, LabelSelector, Server
from reaper.policy.match import Match
from reaper.policy.rules import GROUP_KEYS, Mode, Policy
from reaper.policy.selector import NO_KEYS, From, Glob, Selector
from reaper.policy.session import ACTIVE, IDLE
from reaper.policy.time import exact_words

Policies = Mapping[int, PolicySection]
"""Policies by their position in the file."""

MOST_PATTERNS: Final = 2_000
"""Of all policies: a longer file was generated, and comparing each with each would take seconds."""

_MATCH: Final = "match"

Pattern = Glob | From


def mistakes(head: HeadSection | None, policies: Policies, *, names_servers: bool) -> Iterator[Issue]:
    """Every mistake of meaning; `names_servers` is False if the environment names the server."""
    if head:
        yield from _head_mistakes(head)
    yield from _repeated_names("policies", {number: policy.name for number, policy in policies.items()})
    for at, selector in _selectors(head, policies):
        yield from _useless(at, selector)
    for number, policy in policies.items():
        yield from _state_and_age_mistakes(policy.match, ("policies", number, _MATCH))
        yield from _limit_mistakes(policy, ("policies", number))
        if policy.servers and not names_servers:
            what = "no server in this file has labels"
            instead = "name the servers under servers: or servers_from:"
            yield Issue(("policies", number, "servers"), what, instead)


def _head_mistakes(head: HeadSection) -> Iterator[Issue]:
    if head.min_interval > head.interval:
        interval = exact_words(head.interval)
        what = f"min_interval is longer than the interval of {interval}"
        yield Issue(("min_interval",), what, f"write {interval} or less")
    yield from _repeated_names("servers", {n: server.name for n, server in enumerate(head.servers)})
    yield from _repeated_names("notify", {n: notify.name for n, notify in enumerate(head.notify)})
    for number, notify in enumerate(head.notify):
        given = [key for key in URL_KEYS if getattr(notify, key) is not None]
        if not given:
            instead = "write webhook_file: and the path of a file that contains it"
            yield Issue(("notify", number), "the URL is missing", instead)
        for key in given[1:]:
            yield Issue(("notify", number, key), f"both {given[0]} and {key} are set", "write one of them")


def _repeated_names(kind: str, names: Mapping[int, str]) -> Iterator[Issue]:
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            what = f"the name {quoted(name)} is already used by {kind}[{first[name]}]"
            yield Issue((kind, number, "name"), what, "write another")


def _state_and_age_mistakes(match: MatchSection, at: KeyPath) -> Iterator[Issue]:
    states = set(match.state)
    if not states:
        yield Issue(at, "the state is missing", "write for example state: [idle]")
    if ACTIVE in states:
        yield from _active_mistakes(match, states, at)
    elif all(getattr(match, age) is None for age in AGES):
        yield Issue(at, "an age is missing", "write for example idle_for: 10m")
    elif states:
        yield from _inactive_mistakes(match, states, at)


def _active_mistakes(match: MatchSection, states: set[str], at: KeyPath) -> Iterator[Issue]:
    if len(states) > 1:
        what = f"{ACTIVE!r} cannot be combined with other states"
        yield Issue((*at, "state"), what, "write a policy of its own for it")
    elif match.running_for is None:
        yield Issue(at, f"state {ACTIVE!r} needs running_for", "write for example running_for: 30m")
    if match.idle_for is not None:
        yield Issue((*at, "idle_for"), "active sessions are not idle", "use running_for")


def _inactive_mistakes(match: MatchSection, states: set[str], at: KeyPath) -> Iterator[Issue]:
    if match.running_for is not None:
        what = "only active sessions run a statement"
        yield Issue((*at, "running_for"), what, "use idle_for, or write state: [active]")
    if match.transaction_for is not None and states == {IDLE}:
        what = "an idle session has no transaction: this never matches"
        yield Issue((*at, "transaction_for"), what, "use idle_for, or write state: [idle in transaction]")


def _limit_mistakes(policy: PolicySection, at: KeyPath) -> Iterator[Issue]:
    states = set(policy.match.state)
    if policy.action == "cancel" and states and states != {ACTIVE}:
        what = "only a running statement can be cancelled"
        yield Issue((*at, "action"), what, "write state: [active], or action: terminate")
    if (guard := policy.refill_guard) and guard.pause > guard.max_pause:
        longest = exact_words(guard.max_pause)
        what = f"the first pause is longer than max_pause, {longest}"
        yield Issue((*at, "refill_guard", "pause"), what, f"write {longest} or less, or a longer max_pause:")
    if policy.max_sessions and ACTIVE in states:
        what = "max_sessions counts idle sessions, this policy matches active ones"
        yield Issue((*at, "max_sessions"), what, "delete it")
    elif policy.max_sessions and policy.match.idle_for is None:
        yield Issue((*at, _MATCH), "max_sessions needs idle_for", "write for example idle_for: 10m")
    if policy.max_sessions and policy.keep:
        yield Issue((*at, "max_sessions"), "keep and max_sessions are both set", "write one of them")


def _selectors(head: HeadSection | None, policies: Policies) -> Iterator[tuple[KeyPath, SelectorSection]]:
    if head and head.protect:
        yield ("protect",), head.protect
    for number, policy in policies.items():
        yield ("policies", number, _MATCH), policy.match
        if policy.allowlist:
            yield ("policies", number, "allowlist"), policy.allowlist


def _patterns(at: KeyPath, selector: SelectorSection) -> Iterator[tuple[KeyPath, Pattern]]:
    for key in GROUP_KEYS:
        for number, pattern in enumerate(getattr(selector, key)):
            yield (*at, key, number), pattern


def _useless(at: KeyPath, selector: SelectorSection) -> Iterator[Issue]:
    """Selectors without a key, and patterns that match every session."""
    is_match = at[-1] == _MATCH
    if not is_match and not any(True for _ in _patterns(at, selector)):
        yield Issue(at, "the map is empty", "write one of its keys, or leave it out")
    for path, pattern in _patterns(at, selector):
        if isinstance(pattern, Glob) and _matches_all(pattern, str(path[-2])):
            what = f"{quoted(pattern.text)} matches every session"
        elif not is_match and isinstance(pattern, From) and (version := _whole_version(pattern)):
            what = f"{pattern} matches every {version} client"
        else:
            continue
        yield Issue(path, what, "leave the key out" if is_match else "write a narrower pattern")


def _matches_all(glob: Glob, key: str) -> bool:
    # `?*` as an application still excludes clients that set no name.
    return set(glob.text if key == "application" else glob.text.replace("?", "", 1)) == {"*"}


def _whole_version(pattern: From) -> str | None:
    """The version of IP of which this network contains every address."""
    network = pattern.network
    return f"IPv{network.version}" if network is not None and network.prefixlen == 0 else None


def warnings(head: HeadSection, policies: Policies, servers: Sequence[Server]) -> Iterator[Issue]:
    """What is valid, and probably not intended."""
    for number, notify in enumerate(head.notify):
        if notify.webhook and looks_secret(notify.webhook):
            instead = "keep it in a file, and write webhook_file: with its path"
            yield Issue(("notify", number, "webhook"), "this URL looks like a secret", instead)
    for at, selector in _selectors(head, policies):
        yield from _selector_warnings(at, selector)
    labels = {server.labels for server in servers}
    for number, policy in policies.items():
        yield from _policy_warnings(policy, ("policies", number))
        if labels and not any(policy.labels().selects(each) for each in labels):
            what = "no known server has these labels"
            yield Issue(("policies", number, "servers"), what, "add them to a server, or write others")


def _selector_warnings(at: KeyPath, selector: SelectorSection) -> Iterator[Issue]:
    for path, pattern in _patterns(at, selector):
        if at[-1] == _MATCH and isinstance(pattern, From) and (version := _whole_version(pattern)):
            what = f"{pattern} matches every {version} client"
            yield Issue(path, what, "leave the key out, or write a network")


def _policy_warnings(policy: PolicySection, at: KeyPath) -> Iterator[Issue]:
    if policy.mode == Mode.ENFORCE and policy.safety_limit is None and policy.when is None:
        what = "with neither a safety limit nor when: this policy may terminate every session that it matches"
        instead = "write when: beside safety_limit: none, or keep the safety limit"
        yield Issue((*at, "safety_limit"), what, instead)


def unreachable(policies: Sequence[Policy], labels: Mapping[str, LabelSelector]) -> Iterator[Issue]:
    """Each policy that never decides, because one above it decides about every session that it matches.

    Only what is certain is reported: each condition of the one above must hold for every session for which
    the other's hold.
    """
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
        and earlier.overrides >= later.overrides
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
    used = earlier.when.slots_used if earlier.when else 0
    used_by_later = later.when.slots_used if later.when else 0
    return used <= used_by_later and earlier.during in ((), later.during)


def _matches_whenever(earlier: Match, later: Match) -> bool:
    limits = ((getattr(earlier, key), getattr(later, key)) for key in (*AGES, "xmin_age"))
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
