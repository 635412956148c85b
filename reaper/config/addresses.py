"""Where the URL of each webhook stands: in the policy file, in a file beside it, or in the environment."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from reaper.config import mistakes
from reaper.config.contents import Unreadable, contents
from reaper.config.mistakes import Finding
from reaper.config.models import Head, Notify
from reaper.config.urls import unfit
from reaper.config.webhooks import Occasion, Webhook
from reaper.policy.time import SECOND, Span

DEFAULT_EVERY: Final = Span(60 * SECOND)

_ALONE: Final = "write the URL there, and nothing else"


def webhooks(head: Head | None, file: str) -> Iterator[Webhook | Finding]:
    """Every webhook, or why its URL is not found."""
    for number, notify in enumerate(head.notify or () if head else ()):
        for url in _urls(notify, ("notify", number), Path(file).parent):
            yield url if isinstance(url, Finding) else _webhook(notify, url)


def _webhook(notify: Notify, url: str) -> Webhook:
    return Webhook(
        name=notify.name,
        url=url,
        on=frozenset(map(Occasion, notify.on or Occasion)),
        every=DEFAULT_EVERY if notify.every is None else notify.every,
    )


def _urls(notify: Notify, at: mistakes.Path, folder: Path) -> Iterator[str | Finding]:
    """One, when it is said where; sense tells of those that say it twice, or not at all."""
    match notify.webhook, notify.webhook_file, notify.webhook_env:
        case str(url), None, None:
            yield url
        case None, str(file), None:
            yield _in_a_file(folder / file, (*at, "webhook_file"))
        case None, None, str(variable):
            yield _in_the_environment(variable, (*at, "webhook_env"))


def _in_a_file(path: Path, at: mistakes.Path) -> str | Finding:
    try:
        url = contents(str(path)).decode().strip()
    except Unreadable as error:
        return Finding(at, f"the file cannot be read: {error}", "name a readable file that holds the URL")
    except UnicodeDecodeError:
        return Finding(at, "what stands in the file is not UTF-8", _ALONE)
    if not url:
        return Finding(at, "the file is empty", _ALONE)
    wrong = unfit(url)
    return Finding(at, f"what stands in the file {wrong}", _ALONE) if wrong else url


def _in_the_environment(variable: str, at: mistakes.Path) -> str | Finding:
    url = os.environ.get(variable, "").strip()
    if not url:
        return Finding(at, "this environment variable is not set", "set it, to the URL")
    wrong = unfit(url)
    return Finding(at, f"what stands in this environment variable {wrong}", _ALONE) if wrong else url
