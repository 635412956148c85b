"""README's blocks, as tests run them: what a person would copy from it has to work."""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_FENCE: Final = re.compile(r"(`{3,})(\w*)\s*")
_EXIT: Final = re.compile(r"<!--\s*exit:\s*(\d+)\s*-->")
_OUTPUT: Final = re.compile(r"<!--\s*output\s*-->")
_NEEDS: Final = re.compile(r"<!--\s*needs:\s*(\w+)\s*-->")
_PROMPT: Final = "$ "
_MINIMAL: Final = """\
policies:
  - name: example
    match: {state: [idle], idle_for: 10m, role: [app]}
"""


class Block(NamedTuple):
    """A fenced block, and what the comments right before it say of it."""

    page: str
    line: int
    """Of its first line of text."""
    language: str
    text: str
    exit_code: int = 0
    output_matters: bool = False
    needs: str | None = None
    """What the machine must have that runs it; without it, it can only be read."""

    @property
    def label(self) -> str:
        """What a test report calls it."""
        first = next((line for line in self.text.splitlines() if line.strip()), "nothing")
        return f"{self.page}-{self.line}-{re.sub(r'[^A-Za-z0-9.]+', '-', first).strip('-')[:50]}"

    @property
    def script(self) -> str:
        """Its commands, for bash."""
        if self.language != "console":
            return self.text
        return "".join(
            f"{line.removeprefix(_PROMPT)}\n" for line in self.text.splitlines() if line.startswith(_PROMPT)
        )

    @property
    def shown(self) -> str:
        """The output that it shows, between its commands."""
        return "".join(f"{line}\n" for line in self.text.splitlines() if not line.startswith(_PROMPT))


def blocks(text: str, page: str = "README") -> list[Block]:
    """Every block, in order; one that is never closed is a mistake."""
    return [block._replace(page=page) for block in _blocks(text.splitlines())]


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    said: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if opened := _FENCE.fullmatch(line):
            end = lines.index(opened[1], number)
            yield _block(number + 1, opened[2], lines[number:end], "\n".join(said))
            number = end + 1
            said = []
        elif line.startswith("<!--"):
            said.append(line)
        elif line.strip():
            said = []


def _block(line: int, language: str, lines: Sequence[str], said: str) -> Block:
    exit_code = _EXIT.search(said)
    needs = _NEEDS.search(said)
    return Block(
        page="",
        line=line,
        language=language,
        text="".join(f"{each}\n" for each in lines),
        exit_code=int(exit_code[1]) if exit_code else 0,
        output_matters=bool(_OUTPUT.search(said)),
        needs=needs[1] if needs else None,
    )


def whole_policy_file(text: str) -> str:
    """A part of a policy file with just enough around it; a whole one as it stands."""
    if _has_key("version", text):
        return text
    if text.startswith("- "):
        return f"version: 1\npolicies:\n{text}"
    return f"version: 1\n{text}" + ("" if _has_key("policies", text) else _MINIMAL)


def _has_key(key: str, text: str) -> bool:
    return re.search(rf"^{key}:", text, re.MULTILINE) is not None
