"""The files and variables that a policy file names: what they contain, and whether it has changed."""

import errno
import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, NewType

from reaper.config.errors import BadPolicyFile, BadValue, Issue, Mistake, at_top, quoted, refuse
from reaper.config.model import URL_KEYS, HeadSection, ServerSection
from reaper.config.patterns import url_flaw
from reaper.config.settings import Occasion, Server, Settings, Webhook
from reaper.config.validation import validate, validate_servers
from reaper.config.yaml_tree import LARGEST, Document, parse

_ONLY_THE_URL: Final = "write the URL there, and nothing else"

Stamp = NewType("Stamp", str)
"""Equal as long as reading every file again would give the same settings."""


class UnreadableFile(Exception):
    """Why a file or a folder cannot be read, as the system says it."""


class Vanished(UnreadableFile):
    """The file or folder does not exist, or no longer."""


def contents(file: str, *, may_wait: bool = False) -> bytes:
    """Read a regular file, at most one byte beyond the size limit.

    With `may_wait` also that of a pipe, to its end: `-c <(make-policies)`.
    """
    try:
        # Opening a pipe would otherwise wait for a writer; a pipe without one is empty.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
            _check_kind(opened.fileno(), may_wait=may_wait)
            return opened.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error


def _check_kind(descriptor: int, *, may_wait: bool) -> None:
    mode = os.fstat(descriptor).st_mode
    if may_wait and stat.S_ISFIFO(mode):
        os.set_blocking(descriptor, True)
    elif not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")


def matching(pattern: str) -> list[str]:
    """The files that match a glob now, without hidden ones; its folder is taken literally."""
    last = Path(pattern).name
    folder = pattern.removesuffix(last)
    try:
        names = [file.name for file in Path(folder).iterdir()]
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    # As in a shell: editors and mounted volumes keep their own files hidden there.
    visible = (name for name in names if last.startswith(".") or not name.startswith("."))
    return [folder + name for name in visible if fnmatch.fnmatchcase(name, last)]


def _unreadable(error: OSError | ValueError) -> UnreadableFile:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (Vanished if isinstance(error, FileNotFoundError | NotADirectoryError) else UnreadableFile)(reason)


class NamedFiles(NamedTuple):
    """The globs and files that a policy file names, relative to the working directory."""

    servers_from: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def named_files(head: HeadSection | None, file: str) -> NamedFiles:
    """The files that a policy file names; they are relative to its folder."""
    if head is None:
        return NamedFiles()
    folder = Path(file).parent
    secrets = (notify.webhook_file for notify in head.notify if notify.webhook_file is not None)
    return NamedFiles(
        tuple(str(folder / pattern) for pattern in head.servers_from),
        tuple(str(folder / secret) for secret in secrets),
    )


class ServerLists:
    """The servers in the files of `servers_from`, and the mistakes in these files or their globs."""

    def __init__(self, head: HeadSection | None, document: Document) -> None:
        self.servers: list[Server] = []
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        self._folder = f"{Path(document.file).parent}/"
        self._first: dict[str, str] = {}
        """The place at which each name is used first."""
        # A name that the policy file itself repeats is reported there.
        for number, server in enumerate(head.servers if head else ()):
            self._first.setdefault(server.name, self._place(number, document.file))
        for file in sorted(self._files(head, document)):
            self._read(file)

    def _files(self, head: HeadSection | None, document: Document) -> set[str]:
        files: set[str] = set()
        for number, pattern in enumerate(named_files(head, document.file).servers_from):
            at = ("servers_from", number)
            try:
                found = matching(pattern)
            except Vanished:
                found = []
            except UnreadableFile as error:
                issue = Issue(at, f"the folder cannot be read: {error}", "let the reaper list it")
                self.mistakes += document.mistakes([issue])
                continue
            if not found:
                what = f"no file matches {quoted(pattern.removeprefix(self._folder))}"
                issue = Issue(at, what, "put a list of servers there, or correct the pattern")
                self.warnings += document.mistakes([issue])
            files.update(found)
        return files

    def _read(self, file: str) -> None:
        try:
            document = parse(contents(file), file, below="servers")
        except Vanished:
            # Deleted since it was listed; but a dangling link that stays is reported.
            if Path(file).is_symlink():
                what = "the link points to nothing, so no server is read from it"
                self.warnings.append(at_top(file, what, "correct the link, or delete it"))
        except UnreadableFile as error:
            what = f"the file cannot be read: {error}"
            self.mistakes.append(at_top(file, what, "let the reaper read it, or move it away"))
        except BadPolicyFile as bad:
            self.mistakes += bad.mistakes
        else:
            servers, issues = validate_servers(document)
            reported = {issue.path for issue in issues}
            repeated = (one for one in self._repeated(servers, file) if one.path not in reported)
            self.servers += (server.build() for server in servers.values())
            self.mistakes += document.mistakes([*document.issues, *issues, *repeated])

    def _repeated(self, servers: dict[int, ServerSection], file: str) -> Iterator[Issue]:
        for number, server in servers.items():
            here = self._place(number, file)
            first = self._first.setdefault(server.name, here)
            if first != here:
                what = f"the name {quoted(server.name)} is already used by {first}"
                yield Issue(("servers", number, "name"), what, "write another")

    def _place(self, number: int, file: str) -> str:
        """A server in a message, with its file as the policy file would write it."""
        return f"servers[{number}] of {file.removeprefix(self._folder)}"


def webhooks(head: HeadSection | None, file: str) -> Iterator[Webhook | Issue]:
    """Every webhook, or why its URL is not found."""
    for number, notify in enumerate(head.notify if head else ()):
        given = {key: str(text) for key in URL_KEYS if (text := getattr(notify, key)) is not None}
        if len(given) != 1:
            continue  # reported by `checks`
        ((key, text),) = given.items()
        try:
            url = _url(key, text, Path(file).parent)
        except BadValue as bad:
            yield Issue(("notify", number, key), bad.what, bad.instead)
        else:
            on = frozenset(map(Occasion, notify.on))
            yield Webhook(name=notify.name, url=url, on=on, every=notify.every)


def _url(key: str, text: str, folder: Path) -> str:
    """The URL of a webhook: from the key itself, a file or an environment variable."""
    where, url = "URL", text
    if key == "webhook_file":
        where, url = "content of the file", _content_of_secret(folder / text)
    elif key == "webhook_env":
        where, url = "value of this environment variable", os.environ.get(text, "").strip()
        if not url:
            refuse("this environment variable is not set", "set it to the URL")
    if flaw := url_flaw(url):
        refuse(f"the {where} {flaw}", _ONLY_THE_URL)
    return url


def _content_of_secret(path: Path) -> str:
    try:
        return contents(str(path)).decode().strip()
    except UnreadableFile as error:
        refuse(f"the file cannot be read: {error}", "name a readable file that contains the URL")
    except UnicodeDecodeError:
        refuse("the content of the file is not UTF-8", _ONLY_THE_URL)


def stamp(path: Path, settings: Settings) -> Stamp:
    """The digest of all files that a reload would read now; an unreadable one counts as such."""
    digest = hashlib.sha256()
    for fact in _facts(path, settings):
        digest.update(repr(fact).encode())
    return Stamp(digest.hexdigest())


def _facts(path: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    try:
        data = contents(str(path))
    except UnreadableFile as error:
        yield str(path), f"unreadable: {error}"
        return
    now = hashlib.sha256(data).hexdigest()
    yield str(path), now
    is_in_force = now == settings.rules.digest
    names = NamedFiles(settings.servers_from, settings.secrets) if is_in_force else _named(data, str(path))
    files = set(names.secrets)
    for pattern in names.servers_from:
        try:
            files.update(matching(pattern))
        except UnreadableFile as error:
            yield pattern, f"unreadable: {error}"
    for file in sorted(files):
        yield file, _digest(file)


@lru_cache(maxsize=1)
def _named(data: bytes, file: str) -> NamedFiles:
    """The files named by a policy file that was refused: the mistake may be corrected in one of them."""
    try:
        return named_files(validate(parse(data, file)).head, file)
    except BadPolicyFile:
        return NamedFiles()


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(contents(file)).hexdigest()
    except UnreadableFile as error:
        return f"unreadable: {error}"
