"""The plan of a cycle: what is to become of everybody who was seen."""

from dataclasses import dataclass, field

from reaper.policy.rules import Mode
from reaper.policy.session import Snapshot
from reaper.policy.spans import Instant
from reaper.policy.unjudged import beyond_policies, unmatched
from reaper.policy.verdict import BrakeTrip, Reap, Spare, Verdict, longest_idle_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The verdicts of one cycle, after pace and brakes: every session exactly once."""

    snapshot: Snapshot = field(repr=False, compare=False)
    judged: tuple[Verdict, ...]
    """Whom policies were asked about; no policy can mean anybody else by now."""
    rehearsed_beside: tuple[Reap, ...] = ()
    """What dry-run policies would do with sessions that an enforcing policy takes anyway."""
    brakes: tuple[BrakeTrip, ...] = ()

    @property
    def at(self) -> Instant:
        """The moment of the look."""
        return self.snapshot.at

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Everybody's, in the order of identities; made when somebody asks, for most have nothing to tell."""
        judged = {verdict.session.id: verdict for verdict in self.judged}
        return tuple(
            judged.get(session.id) or beyond_policies(session, self.snapshot) or unmatched(session)
            for session in sorted(self.snapshot.sessions, key=lambda session: session.id)
        )

    @property
    def reaps(self) -> tuple[Reap, ...]:
        """What enforcing policies condemn, the longest idle first."""
        return self._reaps(Mode.ENFORCE)

    @property
    def rehearsals(self) -> tuple[Reap, ...]:
        """What dry-run policies would condemn, the longest idle first."""
        return self._reaps(Mode.DRY_RUN)

    def _reaps(self, mode: Mode) -> tuple[Reap, ...]:
        every = (*self.judged, *self.rehearsed_beside)
        chosen = [verdict for verdict in every if isinstance(verdict, Reap) and verdict.mode is mode]
        return tuple(sorted(chosen, key=lambda reap: longest_idle_first(reap.session)))

    @property
    def spares(self) -> tuple[Spare, ...]:
        """Every session that lives."""
        return tuple(verdict for verdict in self.verdicts if isinstance(verdict, Spare))

    @property
    def matched_spares(self) -> tuple[Spare, ...]:
        """Every session that lives although a policy matches it."""
        return tuple(verdict for verdict in self.judged if isinstance(verdict, Spare) and verdict.policy)
