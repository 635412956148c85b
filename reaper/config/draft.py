"""Proposed policies as the text of a policy file, in which each name matches exactly that name."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from textwrap import wrap
from typing import Final

from reaper.config.errors import BadValue
from reaper.config.patterns import LONGEST_NAME, application_glob
from reaper.insight.advice.proposals import Proposal, Proposals
from reaper.policy.time import exact_words

_WIDTH: Final = 100
_WILD: Final = frozenset("*?[|,^$")


def draft(proposed: Proposals, *, about: Iterable[str]) -> str:
    """The text of a policy file of dry runs, with `about` as its first comment."""
    return "\n".join([*_lines(proposed, about), ""])


def exactly(name: str) -> str | None:
    """The glob that matches this name and no other; None if no policy file can spell it."""
    if (
        len(name.encode(errors="replace")) > LONGEST_NAME
        or "\0" in name
        or any("\ud800" <= each <= "\udfff" for each in name)
    ):
        return None
    escaped = [f"[{each}]" if each in _WILD else each for each in name]
    # A name that looks like another language of patterns is refused, unless its first letter is in a set.
    marked = escaped.copy()
    first = 1 if name.startswith("!") else 0
    if len(name) > first and marked[first] == name[first]:
        marked[first] = f"[{name[first]}]"
    for glob in ("".join(escaped), "".join(marked)):
        with suppress(BadValue):
            return application_glob(glob).text
    return None


def _lines(proposed: Proposals, about: Iterable[str]) -> Iterator[str]:
    for said in about:
        yield from _comment(said)
    yield from ("", "version: 1", "")
    yield from _protect(proposed)
    yield "policies:"
    for policy in proposed.policies:
        yield from _policy(policy)


def _protect(proposed: Proposals) -> Iterator[str]:
    if proposed.poolers:
        names = ", ".join(map(repr, proposed.poolers))
        yield from _comment(f"Poolers are protected by default; seen: {names}.")
    if protected := _spelled(proposed.protected):
        yield from _comment("Monitoring, as seen. A role of its own is a better criterion than its name.")
        yield from ("protect:", f"  application: [{protected}]", "")


def _policy(policy: Proposal) -> Iterator[str]:
    yield ""
    for said in policy.why:
        yield from _comment(said, indent=2)
    names = {"role": policy.role, "application": policy.application}
    globs = {key: exactly(name) for key, name in names.items() if name is not None}
    if None in globs.values() or (policy.roles and not _spelled(policy.roles)):
        what = "There is no policy for it: a policy file cannot spell one of these names."
        yield from _comment(what, indent=2)
        return
    yield f"  - name: {policy.name}"
    yield f"    description: {policy.description}"
    yield "    mode: dry-run"
    yield "    match:"
    yield f"      state: [{', '.join(policy.states)}]"
    yield f"      idle_for: {exact_words(policy.idle_for)}"
    for key, pattern in globs.items():
        yield f"      {key}: [{_quoted(pattern or '')}]"
    if roles := _spelled(policy.roles):
        yield f"      role: [{roles}]"
    if policy.blocking:
        yield "      blocking: true"
    if skipped := _spelled(policy.allowlist):
        yield from ("    allowlist:", f"      application: [{skipped}]")
    if policy.used:
        yield f"    when: {{slots_used: {policy.used}}}"


def _spelled(names: Iterable[str]) -> str:
    """The names that a policy file can spell, as the inside of a list."""
    return ", ".join(_quoted(pattern) for name in names if (pattern := exactly(name)) is not None)


def _quoted(text: str) -> str:
    """Any text as one line of YAML in double quotes."""
    return f'"{"".join(map(_character, text))}"'


def _character(each: str) -> str:
    if each in '"\\':
        return f"\\{each}"
    return each if each.isprintable() else f"\\U{ord(each):08X}"


def _comment(said: str, *, indent: int = 0) -> Iterator[str]:
    """A comment on lines of its own, which no text of a client can end."""
    harmless = "".join(each if each.isprintable() else "?" for each in said)
    for line in wrap(harmless, _WIDTH - indent, break_long_words=False, break_on_hyphens=False) or [""]:
        yield f"{' ' * indent}# {line}".rstrip()
