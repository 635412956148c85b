"""Warnings: what may be meant, and probably is not."""

from collections.abc import Iterator, Mapping, Sequence

from reaper.config import compile as compiled
from reaper.config.mistakes import Finding, Path
from reaper.config.models import Head, Policy
from reaper.config.settings import Server
from reaper.config.urls import looks_secret
from reaper.config.wide import every_address, repeated, selectors, twice
from reaper.policy.rules import Mode


def doubts(head: Head, policies: Mapping[int, Policy], servers: Sequence[Server]) -> Iterator[Finding]:
    """Everything in a valid file that a person should look at once more."""
    yield from _in_the_head(head)
    placed = list(selectors(head, policies))
    yield from every_address(placed)
    yield from repeated(placed)
    labels = {server.labels for server in servers}
    for number, policy in policies.items():
        yield from _repeated_words(number, policy)
        only = compiled.only(policy)
        if labels and not any(only.fits(carried) for carried in labels):
            what = "no server known now has these labels"
            yield Finding(("policies", number, "only"), what, "give them to a server, or ask for others")
        if policy.mode == Mode.ENFORCE and policy.brake is None and policy.when is None:
            what = "nothing stops this policy from taking everybody at once"
            yield Finding(
                ("policies", number, "brake"), what, "write when: beside brake: off, or keep the brake"
            )


def _in_the_head(head: Head) -> Iterator[Finding]:
    yield from _repeated(("servers_from",), head.servers_from or ())
    for number, notify in enumerate(head.notify or ()):
        at = ("notify", number)
        yield from _repeated((*at, "on"), notify.on or ())
        if notify.webhook and looks_secret(notify.webhook):
            instead = "keep it in a file, and write webhook_file: with its path"
            yield Finding((*at, "webhook"), "this URL looks like a secret", instead)


def _repeated_words(number: int, policy: Policy) -> Iterator[Finding]:
    at = ("policies", number)
    lists: dict[tuple[str, ...], Sequence[str]] = {
        ("match", "state"): policy.match.state or (),
        ("despite",): policy.despite or (),
        ("during",): [window.text for window in policy.during or ()],
        ("keep", "per"): policy.keep.per if policy.keep else (),
        ("cap", "per"): policy.cap.per if policy.cap else (),
    }
    for name, values in (policy.only or {}).items():
        lists["only", name] = values
    for path, words in lists.items():
        yield from _repeated((*at, *path), words)


def _repeated(at: Path, words: Sequence[str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, word in enumerate(words):
        if word in seen:
            yield twice((*at, place), word)
        seen.add(word)
