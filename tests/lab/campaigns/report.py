"""What a campaign has to say in the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.lab.benchmarks.table import table


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tables for people, and every promise that was broken, in words."""

    tables: Sequence[str]
    counted: Mapping[str, int]
    """The figures that a test looks at."""
    broken: Sequence[str]

    @property
    def text(self) -> str:
        """All of it."""
        verdict = [f"BROKEN: {what}" for what in self.broken] or ["No promise was broken."]
        return "\n\n".join([*self.tables, "\n".join(verdict)])


def figures(title: str, counted: Mapping[str, int]) -> str:
    """A table of names and whole numbers."""
    return table(title, ("", ""), [(name, f"{count:,}") for name, count in counted.items()])
