"""What holds of everything that is shown, whoever wrote what stands in it."""


def is_line(text: str) -> None:
    """It is one line, and nothing in it moves a cursor or turns the reading direction."""
    assert text.isprintable(), ascii(text)


def is_sentence(text: str, *, longest: int = 2_000) -> None:
    """It is a line that somebody can read, and says something."""
    is_line(text)
    assert 0 < len(text) <= longest, len(text)
