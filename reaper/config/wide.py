"""Selectors that mean nobody or everybody."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from reaper.config.mistakes import Finding, Path, quoted
from reaper.config.models import Head, Policy, Selector
from reaper.policy.rules import GROUP_KEYS
from reaper.policy.selector import From, Glob

MATCH: Final = "match"
_SPARES: Final[Mapping[str, str]] = {"allowlist": "spares", "protect": "protects"}


class Placed(NamedTuple):
    """A selector, and where it stands."""

    path: Path
    selector: Selector

    @property
    def key(self) -> str:
        """Which of match, allowlist and protect it is."""
        return str(self.path[-1])

    def values(self) -> Iterator[tuple[Path, Glob | From]]:
        """Every pattern, and where it stands."""
        for key in GROUP_KEYS:
            for number, pattern in enumerate(getattr(self.selector, key) or ()):
                yield (*self.path, key, number), pattern


def selectors(head: Head | None, policies: Mapping[int, Policy]) -> Iterator[Placed]:
    """Every selector of a file."""
    if head and head.protect:
        yield Placed(("protect",), head.protect)
    for number, policy in policies.items():
        yield Placed(("policies", number, MATCH), policy.match)
        if policy.allowlist:
            yield Placed(("policies", number, "allowlist"), policy.allowlist)


def useless(placed: Iterable[Placed]) -> Iterator[Finding]:
    """Selectors without a key, and patterns that fit everybody."""
    for one in placed:
        if one.key != MATCH and _is_empty(one.selector):
            yield Finding(one.path, "an empty map names nobody", "name somebody, or leave the key out")
        for path, pattern in one.values():
            if isinstance(pattern, Glob) and _fits_all(pattern, str(path[-2])):
                yield _useless(one, path, quoted(pattern.text), "everybody")
            elif one.key != MATCH and isinstance(pattern, From) and _is_every_address(pattern):
                yield _useless(one, path, str(pattern), f"every {_version(pattern)} client")


def every_address(placed: Iterable[Placed]) -> Iterator[Finding]:
    """Networks in a match that hold every address: strange, and no danger beyond leaving the key out."""
    for one in placed:
        for path, pattern in one.values():
            if one.key == MATCH and isinstance(pattern, From) and _is_every_address(pattern):
                yield Finding(
                    path,
                    f"{pattern} is every {_version(pattern)} client",
                    "leave the key out, or name a network",
                )


def repeated(placed: Iterable[Placed]) -> Iterator[Finding]:
    """Patterns that stand in one list twice."""
    for one in placed:
        seen: set[tuple[Path, Glob | From]] = set()
        for path, pattern in one.values():
            if (path[:-1], pattern) in seen:
                yield twice(path, str(pattern))
            seen.add((path[:-1], pattern))


def twice(path: Path, value: str) -> Finding:
    """The finding about a value that stands in its list already."""
    return Finding(path, f"{quoted(value)} stands in this list twice", "delete one of them")


def _useless(placed: Placed, path: Path, said: str, whom: str) -> Finding:
    if placed.key == MATCH:
        return Finding(path, f"{said} fits {whom} and says nothing", "leave the key out")
    return Finding(path, f"{said} {_SPARES[placed.key]} {whom}", "name whom you mean")


def _is_empty(selector: Selector) -> bool:
    return all(getattr(selector, key) is None for key in GROUP_KEYS)


def _fits_all(glob: Glob, key: str) -> bool:
    # `?*` still says something of an application: that the client gave a name at all.
    text = glob.text if key == "application" else glob.text.replace("?", "", 1)
    return set(text) == {"*"}


def _version(pattern: From) -> str:
    return f"IPv{pattern.network.version}" if pattern.network else "local"


def _is_every_address(pattern: From) -> bool:
    return pattern.network is not None and pattern.network.prefixlen == 0
