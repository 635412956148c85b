"""The way from bytes to Settings: whole or not at all, with every mistake at once."""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Final

from reaper.config import compile as compiled
from reaper.config.document import Document, document
from reaper.config.doubts import doubts
from reaper.config.mistakes import BadPolicyFile, Finding, Mistake, Path
from reaper.config.models import Head
from reaper.config.nodes import compose
from reaper.config.reachability import unreachable
from reaper.config.sense import nonsense
from reaper.config.settings import DEFAULT_INTERVAL, DEFAULT_PRECISION, Server, Settings
from reaper.config.shapes import Shape, shape
from reaper.config.syntax import LARGEST, NotYaml, decode
from reaper.policy.rules import GROUP_KEYS, Policy, Rules

_WHO: Final = [(key,) for key in GROUP_KEYS]


def load(path: pathlib.Path) -> Settings:
    """Read a policy file, once: the digest is of the very bytes that were understood."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        what = f"the file cannot be read: {reason}"
        instead = "give a readable policy file"
        raise BadPolicyFile(_at_top(str(path), what, instead)) from error
    return read(data, file=str(path))


def read(data: bytes, *, file: str) -> Settings:
    """Understand the bytes of a policy file, or raise BadPolicyFile with every mistake in them."""
    found = _document(data, file)
    read_as = shape(found)
    mistakes = [*found.findings, *read_as.findings, *_untold(read_as)]
    if mistakes or read_as.head is None:
        raise BadPolicyFile(*_mistakes(mistakes, found, file))
    policies = tuple(compiled.policy(model) for model in read_as.policies.values())
    warnings = [*doubts(read_as.head, read_as.policies), *unreachable(policies)]
    return _settings(
        head=read_as.head,
        policies=policies,
        digest=hashlib.sha256(data).hexdigest(),
        warnings=tuple(_mistakes(warnings, found, file)),
    )


def _document(data: bytes, file: str) -> Document:
    try:
        root = compose(decode(data))
    except NotYaml as error:
        raise BadPolicyFile(
            Mistake(
                file=file,
                line=error.line,
                column=error.column,
                where="file",
                what=error.what,
                instead=error.instead,
            )
        ) from None
    if root is None:
        raise BadPolicyFile(_at_top(file, "the file is empty", "write version: 1, and policies: below it"))
    return document(root)


def _untold(found: Shape) -> list[Finding]:
    """The mistakes of meaning, but for those that only follow from what is already told."""
    told = {prefix for finding in found.findings for prefix in _touched(finding.path)}
    return [finding for finding in nonsense(found.head, found.policies) if finding.path not in told]


def _touched(path: Path) -> Iterator[Path]:
    """A path that holds a mistake, and each one above it that may lack something for that reason."""
    for length in range(len(path) + 1):
        # Whatever is wrong with a role, the match still needs its state and its age.
        if path[length - 1 : length] != ("match",) or path[length : length + 1] not in _WHO:
            yield path[:length]


def _mistakes(findings: Iterable[Finding], found: Document, file: str) -> list[Mistake]:
    return sorted({found.mistake(finding, file) for finding in findings})


def _at_top(file: str, what: str, instead: str) -> Mistake:
    return Mistake(file=file, line=1, column=1, where="file", what=what, instead=instead)


def _settings(
    *, head: Head, policies: tuple[Policy, ...], digest: str, warnings: tuple[Mistake, ...]
) -> Settings:
    return Settings(
        rules=Rules(policies=policies, protect=compiled.selector(head.protect), digest=digest),
        interval=DEFAULT_INTERVAL if head.interval is None else head.interval,
        precision=DEFAULT_PRECISION if head.precision is None else head.precision,
        servers=tuple(Server(name=server.name, dsn=server.dsn) for server in head.servers or ()),
        warnings=warnings,
    )
