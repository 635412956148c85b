"""The lists of servers that `servers_from` finds: each file read once, its mistakes told in its own name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reaper.config import pages, shapes
from reaper.config.contents import Unreadable, Vanished, contents, found
from reaper.config.mistakes import BadPolicyFile, Finding, Mistake, at_top, quoted
from reaper.config.models import Head, Server
from reaper.config.neighbours import named
from reaper.config.pages import Page


@dataclass(slots=True)
class Lists:
    """What all the files together say, and what is wrong with them."""

    servers: list[Server] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Mistakes of the policy file itself: patterns whose folder cannot be read."""
    doubts: list[Finding] = field(default_factory=list)
    """Patterns that find nothing now."""
    warnings: list[Mistake] = field(default_factory=list)


def lists(head: Head, file: str) -> Lists:
    """Read the files that this policy file names, in the order of their names."""
    reading = _Reading(head, file)
    for found_file in sorted(reading.files(head, file)):
        reading.read(found_file)
    return reading.result


class _Reading:
    def __init__(self, head: Head, file: str) -> None:
        self.result = Lists()
        self._folder = f"{Path(file).parent}/"
        self._taken: dict[str, str] = {}
        # A name that the policy file itself gives twice is told there.
        for number, server in enumerate(head.servers or ()):
            self._taken.setdefault(server.name, self._place(number, file))

    def files(self, head: Head, file: str) -> set[str]:
        """Every file that some pattern finds."""
        files: set[str] = set()
        patterns = zip(head.servers_from or (), named(head, file).servers_from, strict=True)
        for number, (written, pattern) in enumerate(patterns):
            at = ("servers_from", number)
            try:
                here = found(pattern)
            except Vanished:
                here = []
            except Unreadable as error:
                instead = "let the reaper list it"
                self.result.findings.append(Finding(at, f"the folder cannot be read: {error}", instead))
                continue
            if not here:
                what = f"no file is found by {quoted(written)}"
                instead = "put a list of servers there, or mend the pattern"
                self.result.doubts.append(Finding(at, what, instead))
            files.update(here)
        return files

    def read(self, file: str) -> None:
        """Add what one file says."""
        try:
            data = contents(file)
            page = pages.servers(data, file)
        except Vanished:
            # Gone since it was listed; but of a link that stays, and leads nowhere, a person should hear.
            if Path(file).is_symlink():
                what = "the link leads nowhere, so no server is read from it"
                self.result.warnings.append(at_top(file, what, "mend the link, or delete it"))
        except Unreadable as error:
            what = f"the file cannot be read: {error}"
            self.result.mistakes.append(at_top(file, what, "let the reaper read it, or move it away"))
        except BadPolicyFile as bad:
            self.result.mistakes.extend(bad.mistakes)
        else:
            self.result.mistakes.extend(pages.unended(data, file))
            self._understand(page)

    def _understand(self, page: Page) -> None:
        servers, findings = shapes.servers(page.document)
        told = {finding.path for finding in findings}
        clashes = [one for one in self._clashes(servers, page.file) if one.path not in told]
        self.result.servers.extend(servers.values())
        self.result.mistakes.extend(page.mistakes([*page.document.findings, *findings, *clashes]))

    def _clashes(self, servers: Mapping[int, Server], file: str) -> Iterator[Finding]:
        for number, server in servers.items():
            here = self._place(number, file)
            first = self._taken.setdefault(server.name, here)
            if first != here:
                what = f"the name {quoted(server.name)} is taken by {first}"
                yield Finding(("servers", number, "name"), what, "write another")

    def _place(self, number: int, file: str) -> str:
        """A server as mistakes speak of it, with its file as the policy file would write it."""
        return f"servers[{number}] of {file.removeprefix(self._folder)}"
