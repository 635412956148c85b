"""Proposed policies as a policy file: for people to change, and every name in it exactly the one meant.

The one thing of this floor that writes: only text, which whoever asked for it puts into a file.
"""

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Final

from reaper.config.errors import BadValue
from reaper.config.patterns import application_glob
from reaper.insight.advice.proposals import Proposal, Proposals
from reaper.policy.time import exact_words

_WIDTH: Final = 100
_WILD: Final = frozenset("*?[")


def draft(proposed: Proposals, *, about: Iterable[str]) -> str:
    """The text of a policy file that only rehearses; `about` stands above it."""
    return "\n".join([*_lines(proposed, about), ""])


def exactly(name: str) -> str | None:
    """The glob that fits this name and no other; nothing when no policy file can spell it."""
    glob = "".join(f"[{each}]" if each in _WILD else each for each in name)
    if "\0" in name or any("\ud800" <= each <= "\udfff" for each in name):
        return None
    try:
        return application_glob(glob).text
    except BadValue:
        return None


def _lines(proposed: Proposals, about: Iterable[str]) -> Iterator[str]:
    for said in about:
        yield from _comment(said)
    yield ""
    yield "version: 1"
    yield ""
    yield from _protect(proposed)
    yield "policies:"
    for policy in proposed.policies:
        yield from _policy(policy)


def _protect(proposed: Proposals) -> Iterator[str]:
    if proposed.poolers:
        names = ", ".join(map(repr, proposed.poolers))
        yield from _comment(f"Poolers are protected without a word; seen: {names}.")
    protected = _spelled(proposed.protected)
    if protected:
        yield from _comment(
            "Monitoring, as seen. The client chooses its name: a role of its own is the better criterion."
        )
        yield "protect:"
        yield f"  application: [{protected}]"
        yield ""


def _policy(policy: Proposal) -> Iterator[str]:
    yield ""
    for said in policy.why:
        yield from _comment(said, indent=2)
    whom = {"role": policy.role, "application": policy.application}
    named = {key: exactly(name) for key, name in whom.items() if name is not None}
    if None in named.values() or (policy.roles and not _spelled(policy.roles)):
        yield from _comment(
            "There is no policy for it: a policy file cannot spell one of these names.", indent=2
        )
        return
    yield f"  - name: {policy.name}"
    yield f"    description: {policy.description}"
    yield "    mode: dry-run"
    yield "    match:"
    yield f"      state: [{', '.join(policy.states)}]"
    yield f"      idle_for: {exact_words(policy.idle_for)}"
    for key, pattern in named.items():
        yield f"      {key}: [{_quoted(pattern or '')}]"
    if roles := _spelled(policy.roles):
        yield f"      role: [{roles}]"
    if policy.blocking:
        yield "      blocking: true"
    if spares := _spelled(policy.spares):
        yield "    allowlist:"
        yield f"      application: [{spares}]"
    if policy.used:
        yield f"    when: {{slots_used: {policy.used}}}"


def _spelled(names: Iterable[str]) -> str:
    """The names that can be spelled, as the inside of a list."""
    return ", ".join(_quoted(pattern) for name in names if (pattern := exactly(name)) is not None)


def _quoted(text: str) -> str:
    """A text as YAML reads it back, whatever is in it: on one line, in double quotes."""
    return f'"{"".join(map(_character, text))}"'


def _character(each: str) -> str:
    if each in '"\\':
        return f"\\{each}"
    return each if each.isprintable() else f"\\U{ord(each):08X}"


def _comment(said: str, *, indent: int = 0) -> Iterator[str]:
    """On lines of its own; what a client wrote cannot end one."""
    harmless = "".join(each if each.isprintable() else "?" for each in said)
    for line in wrap(harmless, _WIDTH - indent, break_long_words=False, break_on_hyphens=False) or [""]:
        yield f"{' ' * indent}# {line}".rstrip()
