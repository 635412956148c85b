"""The story in three acts; each moves on when what it shows has happened, and could be seen for a while."""

from dataclasses import dataclass, replace
from typing import Final

from reaper.demo.clients import Client
from reaper.demo.patrol import Patrol
from reaper.demo.policy_file import PolicyFile
from reaper.demo.scene import Scene
from reaper.demo.score import CLIENT, Act, Score
from reaper.demo.tempo import Tempo
from reaper.policy.plan import Result

_FILL_UP: Final = Act(
    number=1,
    title="The slots fill up, and the policies only rehearse",
    hint="A dry run takes the same decisions, and touches nobody.",
)
_ENFORCE: Final = Act(number=2, title="The same policies, enforced")
_ASK: Final = Act(
    number=3,
    title="Those who should live answer for themselves",
    hint="Each client uses its own connections again.",
)

_ENOUGH_TRIES: Final = 4
_ENOUGH_REHEARSALS: Final = {"leaked-sessions": 6, "forgotten-transactions": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Plays the acts on the scene, before the eyes of the patrol."""

    scene: Scene
    patrol: Patrol
    policies: PolicyFile
    score: Score
    tempo: Tempo

    async def arrive(self) -> None:
        """Everybody comes who is there before the trouble begins."""
        self.score.begin(_FILL_UP)
        for resident in self.scene.residents:
            await resident.arrive()
            self._introduce(resident)
            await self.tempo.rest(0.3)
        await self.scene.console.arrive()
        self._introduce(self.scene.console)
        self._introduce(self.scene.customer)
        self._introduce(self.scene.leaky)

    async def fill_up(self) -> None:
        """Until customers are refused, and the reaper has said whom it would take."""
        await self.tempo.until("a refusal of the customer", self._is_full)
        await self.tempo.until("a rehearsal of every policy", self._is_rehearsed)
        await self.tempo.rest(4)

    async def enforce(self) -> None:
        """Until everybody is gone whom the dry run would have taken, and customers get in."""
        self.score.begin(replace(_ENFORCE, hint=self.policies.enforce()))
        await self.tempo.rest(2.5)
        self.scene.calm_down()
        self.score.mode = "enforce"
        self.patrol.adopt(self.policies.read())
        await self.tempo.until("the end of the leaked sessions", lambda: not self.score.condemned)
        await self.tempo.until("a customer who gets in", self._gets_in)
        await self.tempo.rest(4)

    async def ask(self) -> str:
        """Ask everybody; what the forgotten console is told in the end."""
        self.score.begin(_ASK)
        async for proof in self.scene.proofs():
            self.score.prove(proof)
            await self.tempo.rest(0.5)
        told = await self.scene.console.come_back()
        self.score.tell(CLIENT, f"psql: COMMIT, after lunch: {told}")
        await self.tempo.rest(2)
        return told

    def _introduce(self, client: Client) -> None:
        self.score.tell(CLIENT, f"{client.application}: {client.habit}")

    def _is_full(self) -> bool:
        return self.score.before.refused >= _ENOUGH_TRIES

    def _is_rehearsed(self) -> bool:
        return all(
            self.score.count(Result.REHEARSED, policy) >= enough
            for policy, enough in _ENOUGH_REHEARSALS.items()
        )

    def _gets_in(self) -> bool:
        return self.score.after.tries >= _ENOUGH_TRIES and self.score.refusal is None
