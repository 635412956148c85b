"""Labels of servers, and what a policy asks of them."""

from dataclasses import dataclass

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted by name."""


@dataclass(frozen=True, slots=True)
class Only:
    """The servers that a policy concerns: those that have all of these labels."""

    labels: tuple[tuple[str, frozenset[str]], ...] = ()
    """Names, each with the values of which any is enough."""

    def fits(self, labels: Labels) -> bool:
        """Whether a server with these labels is concerned."""
        carried = dict(labels)
        return all(carried.get(name) in values for name, values in self.labels)

    def holds(self, other: "Only") -> bool:
        """Whether every server that the other concerns, known or not, is concerned by this one too."""
        asked = dict(other.labels)
        return all(name in asked and asked[name] <= values for name, values in self.labels)


EVERY_SERVER = Only()
