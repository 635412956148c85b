"""/rehearsal for programs: what became of whom policies would have terminated, and what they leave alone."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reaper.policy.assessment import FORMAT, Assessment, as_document
from reaper.policy.session import Identity
from reaper.telemetry.answers import Answers, as_json

_KEPT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A group that refills at once, and that a policy leaves alone."""

    server: str
    policy: str
    session: Identity
    until: str | None
    """By the server's clock."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What a reaper has learnt from its rehearsals and its acts since it began."""

    policies: tuple[Assessment, ...] = ()
    watched: int = 0
    """Sessions of which it is still to be seen what becomes of them."""
    forgotten: int = 0
    """Older acts that only the record still knows."""
    left_alone: tuple[LeftAlone, ...] = ()


Learnt = Callable[[], Awaitable[Verdicts]]


def verdict_routes(learnt: Learnt) -> list[Route]:
    """The page of verdicts."""

    async def made(_: None) -> Verdicts:
        return await learnt()

    answers = Answers[None, Verdicts](made, seconds=_KEPT_SECONDS)

    async def rehearsal(_: Request) -> Response:
        return as_json(document_of(await answers.to(None)))

    return [Route("/rehearsal", rehearsal)]


def document_of(verdicts: Verdicts) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "rehearsal": FORMAT,
        "policies": [as_document(one) for one in verdicts.policies],
        "watched": verdicts.watched,
        "forgotten": verdicts.forgotten,
        "left_alone": [
            {
                "server": one.server,
                "policy": one.policy,
                **one.session._asdict(),
                "until": one.until,
                "reason": one.reason,
            }
            for one in verdicts.left_alone
        ],
    }
