"""Mistakes that no schema sees: policies that name no state or age, or contradict themselves."""

from collections.abc import Iterator, Mapping

from reaper.config.mistakes import Finding, Path, quoted
from reaper.config.models import AGES, URL_KEYS, Head, Match, Policy
from reaper.config.settings import DEFAULT_INTERVAL, DEFAULT_PRECISION
from reaper.config.wide import selectors, useless
from reaper.policy.refill_guard import DEFAULT_CHURN
from reaper.policy.session import ACTIVE, IDLE
from reaper.policy.time import exact_words


def nonsense(head: Head | None, policies: Mapping[int, Policy], *, names_servers: bool) -> Iterator[Finding]:
    """Every mistake of meaning, in a file that names its servers or leaves that to the environment."""
    if head:
        yield from _precision(head)
        yield from _taken_names("servers", {n: server.name for n, server in enumerate(head.servers or ())})
        yield from _taken_names("notify", {n: notify.name for n, notify in enumerate(head.notify or ())})
        yield from _webhooks(head)
    yield from _taken_names("policies", {n: policy.name for n, policy in policies.items()})
    yield from useless(selectors(head, policies))
    for number, policy in policies.items():
        at = ("policies", number)
        yield from _states_and_ages(policy.match, (*at, "match"))
        yield from _restraints(policy, at)
        if policy.only is not None and not names_servers:
            what = "no server of this file carries a label"
            yield Finding((*at, "only"), what, "name the servers under servers: or servers_from:")


def _precision(head: Head) -> Iterator[Finding]:
    interval = head.interval or DEFAULT_INTERVAL
    if (head.precision or DEFAULT_PRECISION) > interval:
        what = f"the precision is longer than the interval of {exact_words(interval)}"
        yield Finding(("precision",), what, f"write {exact_words(interval)} or less")


def _taken_names(kind: str, names: Mapping[int, str]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            what = f"the name {quoted(name)} is taken by {kind}[{first[name]}]"
            yield Finding((kind, number, "name"), what, "write another")


def _webhooks(head: Head) -> Iterator[Finding]:
    for number, notify in enumerate(head.notify or ()):
        at = ("notify", number)
        given = [key for key in URL_KEYS if getattr(notify, key) is not None]
        if not given:
            yield Finding(at, "no URL is given", "write webhook_file: and the path of a file that holds it")
        for key in given[1:]:
            yield Finding((*at, key), f"{given[0]} and {key} stand in one entry", "write one of them")


def _states_and_ages(match: Match, at: Path) -> Iterator[Finding]:
    states = set(match.state or ())
    if not states:
        yield Finding(at, "no state is named", "write for example state: [idle]")
    if ACTIVE in states:
        yield from _active(match, states, at)
    elif all(getattr(match, age) is None for age in AGES):
        yield Finding(at, "no age is asked for", "write for example idle_for: 10m")
    elif states:
        yield from _inactive(match, states, at)


def _active(match: Match, states: set[str], at: Path) -> Iterator[Finding]:
    if len(states) > 1:
        yield Finding((*at, "state"), f"{ACTIVE!r} stands beside other states", "give it a policy of its own")
    elif match.running_for is None:
        yield Finding(at, f"state {ACTIVE!r} needs running_for", "write for example running_for: 30m")
    if match.idle_for is not None:
        yield Finding((*at, "idle_for"), "active sessions are not idle", "use running_for")


def _inactive(match: Match, states: set[str], at: Path) -> Iterator[Finding]:
    if match.running_for is not None:
        what = "only active sessions run a statement"
        yield Finding((*at, "running_for"), what, "use idle_for, or write state: [active]")
    if match.transaction_for is not None and states == {IDLE}:
        what = "an idle session has no transaction: this never matches"
        yield Finding((*at, "transaction_for"), what, "use idle_for, or name 'idle in transaction'")


def _restraints(policy: Policy, at: Path) -> Iterator[Finding]:
    states = set(policy.match.state or ())
    if policy.action == "cancel" and states and states != {ACTIVE}:
        what = "only a running statement can be cancelled"
        yield Finding((*at, "action"), what, "write state: [active], or action: terminate")
    if policy.churn and (policy.churn.pause or 0) > (policy.churn.longest or DEFAULT_CHURN.longest):
        longest = exact_words(policy.churn.longest or DEFAULT_CHURN.longest)
        what = f"the first pause is longer than the longest of {longest}"
        yield Finding((*at, "churn", "pause"), what, f"write {longest} or less, or a longer longest:")
    if policy.cap and ACTIVE in states:
        what = "a cap counts idle sessions, and this policy means active ones"
        yield Finding((*at, "cap"), what, "leave it out")
    elif policy.cap and policy.match.idle_for is None:
        yield Finding((*at, "match"), "a cap needs idle_for", "write for example idle_for: 10m")
    if policy.cap and policy.keep:
        yield Finding((*at, "cap"), "keep and cap stand in one policy", "write one of them")
