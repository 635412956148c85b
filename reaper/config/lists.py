"""The lists of servers that `servers_from` finds: each file read once, its mistakes told in its own name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reaper.config import models, pages, shapes
from reaper.config.contents import Unreadable, Vanished, contents, found
from reaper.config.mistakes import BadPolicyFile, Finding, Mistake, at_top, quoted


@dataclass(slots=True)
class Lists:
    """What all the files together say, and what is wrong with them."""

    servers: list[models.Server] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Mistakes of the policy file itself: patterns whose folder cannot be read."""
    doubts: list[Finding] = field(default_factory=list)
    """Patterns that find nothing now."""
    warnings: list[Mistake] = field(default_factory=list)


def lists(patterns: Sequence[str], own: Sequence[models.Server], file: str) -> Lists:
    """Read the files that these patterns find, in the order of their names, beside the file's own servers."""
    result = Lists()
    taken = {server.name: f"servers[{number}] of {file}" for number, server in reversed([*enumerate(own)])}
    for path in sorted(_files(patterns, result)):
        _read(path, taken, result)
    return result


def _files(patterns: Sequence[str], result: Lists) -> set[Path]:
    files: set[Path] = set()
    for number, pattern in enumerate(patterns):
        at = ("servers_from", number)
        try:
            here = found(pattern)
        except Vanished:
            here = []
        except Unreadable as error:
            what = f"the folder cannot be read: {error}"
            result.findings.append(Finding(at, what, "let the reaper list it"))
            continue
        if not here:
            what = f"no file is found by {quoted(pattern)}"
            result.doubts.append(Finding(at, what, "put a list of servers there, or mend the pattern"))
        files.update(here)
    return files


def _read(path: Path, taken: dict[str, str], result: Lists) -> None:
    file = str(path)
    try:
        page = pages.servers(contents(path), file)
    except Vanished:
        # Gone since it was listed; but a link that stays, and leads nowhere, should be heard of.
        if path.is_symlink():
            what = "the link leads nowhere, so no server is read from it"
            result.warnings.append(at_top(file, what, "mend the link, or delete it"))
    except Unreadable as error:
        what = f"the file cannot be read: {error}"
        result.mistakes.append(at_top(file, what, "let the reaper read it, or move it away"))
    except BadPolicyFile as bad:
        result.mistakes.extend(bad.mistakes)
    else:
        servers, findings = shapes.servers(page.document)
        told = {finding.path for finding in findings}
        clashes = (one for one in _clashes(servers, taken, file) if one.path not in told)
        result.servers.extend(servers.values())
        result.mistakes.extend(page.mistakes([*page.document.findings, *findings, *clashes]))


def _clashes(servers: Mapping[int, models.Server], taken: dict[str, str], file: str) -> Iterator[Finding]:
    for number, server in servers.items():
        here = f"servers[{number}] of {file}"
        if taken.setdefault(server.name, here) != here:
            what = f"the name {quoted(server.name)} is taken by {taken[server.name]}"
            yield Finding(("servers", number, "name"), what, "write another")
