"""The way from bytes to Settings: whole or not at all, with every mistake at once."""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from reaper.config import compile as compiled
from reaper.config import pages
from reaper.config.addresses import webhooks
from reaper.config.contents import Unreadable, piped
from reaper.config.document import Document
from reaper.config.doubts import doubts
from reaper.config.lists import Lists, lists
from reaper.config.mistakes import BadPolicyFile, Finding, Mistake, Path, at_top
from reaper.config.models import Head
from reaper.config.neighbours import named
from reaper.config.pages import Page
from reaper.config.reachability import unreachable
from reaper.config.sense import nonsense
from reaper.config.settings import DEFAULT_INTERVAL, DEFAULT_PRECISION, Settings
from reaper.config.shapes import Shape, shape
from reaper.config.webhooks import Webhook
from reaper.policy.rules import GROUP_KEYS, Rules

_WHO: Final = [(key,) for key in GROUP_KEYS]


class _Beside(NamedTuple):
    """What the files and variables say that a policy file names."""

    lists: Lists
    webhooks: tuple[Webhook, ...]
    findings: list[Finding]


def load(path: pathlib.Path) -> Settings:
    """Read a policy file, once, and what it names: the digest is of the very bytes that were understood."""
    try:
        data = piped(str(path))
    except Unreadable as error:
        what = f"the file cannot be read: {error}"
        raise BadPolicyFile(
            at_top(str(path), what, "name a readable one with --policies or REAPER_POLICIES")
        ) from error
    return read(data, file=str(path))


def read(data: bytes, *, file: str) -> Settings:
    """Understand the bytes of a policy file, or raise BadPolicyFile with every mistake in them."""
    page = pages.policies(data, file)
    found = shape(page.document)
    beside = _beside(found.head, file)
    findings = [*page.document.findings, *found.findings, *_untold(found, page.document, beside)]
    mistakes = [*page.mistakes(findings), *pages.unended(data, file), *beside.lists.mistakes]
    if mistakes or found.head is None:
        raise BadPolicyFile(*mistakes)
    return _settings(found.head, found, beside, page, hashlib.sha256(data).hexdigest())


def _beside(head: Head | None, file: str) -> _Beside:
    listed = lists(head, file) if head else Lists()
    notified = list(webhooks(head, file))
    ready = tuple(one for one in notified if isinstance(one, Webhook))
    return _Beside(listed, ready, [*listed.findings, *(one for one in notified if isinstance(one, Finding))])


def _untold(found: Shape, document: Document, beside: _Beside) -> list[Finding]:
    """The mistakes of meaning, but for those that only follow from what is already told."""
    told = {prefix for finding in found.findings for prefix in _touched(finding.path)}
    names_servers = any((key,) in document.places for key in ("servers", "servers_from"))
    meant = nonsense(found.head, found.policies, names_servers=names_servers)
    return [finding for finding in (*meant, *beside.findings) if finding.path not in told]


def _touched(path: Path) -> Iterator[Path]:
    """A path that holds a mistake, and each one above it that may lack something for that reason."""
    for length in range(len(path) + 1):
        # Whatever is wrong with a role, the match still needs its state and its age.
        if path[length - 1 : length] != ("match",) or path[length : length + 1] not in _WHO:
            yield path[:length]


def _settings(head: Head, found: Shape, beside: _Beside, page: Page, digest: str) -> Settings:
    policies = tuple(compiled.policy(model) for model in found.policies.values())
    only = {model.name: compiled.only(model) for model in found.policies.values() if model.only}
    servers = tuple(compiled.server(model) for model in (*(head.servers or ()), *beside.lists.servers))
    doubtful = [*doubts(head, found.policies, servers), *unreachable(policies, only), *beside.lists.doubts]
    beside_it = named(head, page.file)
    return Settings(
        rules=Rules(policies=policies, protect=compiled.selector(head.protect), digest=digest),
        interval=DEFAULT_INTERVAL if head.interval is None else head.interval,
        precision=DEFAULT_PRECISION if head.precision is None else head.precision,
        servers=servers,
        warnings=_warnings(page, doubtful, beside),
        only=tuple(only.items()),
        notify=beside.webhooks,
        servers_from=beside_it.servers_from,
        secrets=beside_it.secrets,
    )


def _warnings(page: Page, doubtful: list[Finding], beside: _Beside) -> tuple[Mistake, ...]:
    return tuple(sorted([*page.mistakes(doubtful), *beside.lists.warnings]))
