"""From the bytes of a policy file to Settings: completely or not at all, with every mistake at once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reaper.config import checks
from reaper.config.errors import BadPolicyFile, Issue, KeyPath, at_top
from reaper.config.files import ServerLists, UnreadableFile, contents, named_files, webhooks
from reaper.config.model import HeadSection, PolicySection
from reaper.config.settings import Settings, Webhook
from reaper.config.validation import validate
from reaper.config.yaml_tree import Document, parse
from reaper.policy.rules import GROUP_KEYS, Rules
from reaper.policy.selector import Selector

_SELECTOR_KEYS: Final = [(key,) for key in GROUP_KEYS]


def load(path: Path) -> Settings:
    """Read a policy file once, and the files that it names: the digest is of the bytes that were read."""
    try:
        data = contents(str(path), may_wait=True)
    except UnreadableFile as error:
        instead = "name a readable one with --config or REAPER_CONFIG"
        raise BadPolicyFile(at_top(str(path), f"the file cannot be read: {error}", instead)) from error
    return read(data, file=str(path))


def read(data: bytes, *, file: str) -> Settings:
    """Settings from the bytes of a policy file; BadPolicyFile with all of its mistakes otherwise."""
    document = parse(data, file)
    names_servers = any((key,) in document.places for key in ("servers", "servers_from"))
    head, policies, issues = validate(document)
    lists = ServerLists(head, document)
    hooks = list(webhooks(head, file))
    bad_hooks = [one for one in hooks if isinstance(one, Issue)]
    further = [*checks.mistakes(head, policies, names_servers=names_servers), *bad_hooks]
    found = document.mistakes([*document.issues, *issues, *_independent(further, issues)])
    if head is None or found or lists.mistakes:
        raise BadPolicyFile(*found, *lists.mistakes)
    ready = tuple(one for one in hooks if isinstance(one, Webhook))
    return _settings(head, policies, document, lists, ready, hashlib.sha256(data).hexdigest())


def _independent(further: list[Issue], issues: list[Issue]) -> Iterator[Issue]:
    """The mistakes of meaning that do not only follow from one that is already reported."""
    reported = {prefix for issue in issues for prefix in _affected(issue.path)}
    return (issue for issue in further if issue.path not in reported)


def _affected(path: KeyPath) -> Iterator[KeyPath]:
    """The path of a mistake, and each one above it that may lack something because of it."""
    for length in range(len(path) + 1):
        # A wrong role does not explain that the match lacks a state or an age.
        if path[length - 1 : length] != ("match",) or path[length : length + 1] not in _SELECTOR_KEYS:
            yield path[:length]


def _settings(
    head: HeadSection,
    entries: dict[int, PolicySection],
    document: Document,
    lists: ServerLists,
    hooks: tuple[Webhook, ...],
    digest: str,
) -> Settings:
    policies = tuple(entry.build() for entry in entries.values())
    labels = {entry.name: entry.labels() for entry in entries.values() if entry.servers}
    servers = (*(server.build() for server in head.servers), *lists.servers)
    doubts = [*checks.warnings(head, entries, servers), *checks.unreachable(policies, labels)]
    protect = head.protect.selector() if head.protect else Selector()
    named = named_files(head, document.file)
    return Settings(
        rules=Rules(policies=policies, protect=protect, digest=digest),
        interval=head.interval,
        min_interval=head.min_interval,
        servers=servers,
        warnings=tuple(sorted([*document.mistakes(doubts), *lists.warnings])),
        policy_labels=tuple(labels.items()),
        notify=hooks,
        servers_from=named.servers_from,
        secrets=named.secrets,
    )
