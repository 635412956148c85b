"""The sessions that some policy could mean by now, and which policies these are."""

from collections.abc import Collection, Iterable, Mapping

from reaper.policy.session import Session, SessionId


class Ripe:
    """Sessions by the policies whose ages they have reached."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self._policies: dict[SessionId, frozenset[str]] = {}
        self._under: dict[str, dict[SessionId, None]] = {}

    def __contains__(self, who: SessionId) -> bool:
        """Whether it is among them."""
        return who in self.sessions

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self.sessions)

    def put(self, session: Session, policies: Iterable[str]) -> None:
        """These policies could mean it by now."""
        names = frozenset(policies)
        before = self._policies.get(session.id, frozenset())
        for name in names - before:
            self._under.setdefault(name, {})[session.id] = None
        self._policies[session.id] = names | before
        self.sessions[session.id] = session

    def swap(self, session: Session) -> None:
        """It is still as it was, and something is known anew of it."""
        self.sessions[session.id] = session

    def pop(self, who: SessionId) -> frozenset[str]:
        """It is among them no longer; under which policies it was."""
        if self.sessions.pop(who, None) is None:
            return frozenset()
        names = self._policies.pop(who)
        for name in names:
            del self._under[name][who]
        return names

    def under(self, policies: Collection[str]) -> Mapping[SessionId, Session]:
        """Those whom any of these policies could mean."""
        found = dict[SessionId, Session]()
        for name in policies:
            for who in self._under.get(name, ()):
                found[who] = self.sessions[who]
        return found
