"""A policy file is Settings by which any server can be judged, or sentences with their places."""

from pathlib import Path
from typing import Final

from reaper.config import BadPolicyFile, Settings, model, read
from reaper.policy.decide import decide, questions
from reaper.policy.explain import explain
from reaper.policy.memory import Memory
from reaper.policy.session import Snapshot
from tests.lab.fuzz.promises import is_sentence
from tests.unit.policy.build import session, snapshot

_CONFIG: Final = Path(__file__).parents[3] / "unit" / "config"
SEEDS: Final = tuple(
    file.read_bytes() for folder in ("bad", "doubtful") for file in sorted((_CONFIG / folder).glob("*.yaml"))
)
WORDS: Final = tuple(
    word.encode()
    for word in (
        *(
            name
            for entry in (model.FileEntry, model.PolicyEntry, model.MatchEntry)
            for name in entry.model_fields
        ),
        *(
            name
            for entry in (model.ServerEntry, model.NotifyEntry, model.SafetyLimitEntry)
            for name in entry.model_fields
        ),
        *("idle", "active", "10m", "1s", "50%", "off", "enforce", "local", "10.0.0.0/8", '"*"', "[a-z]*"),
    )
)
_SEEN: Final[Snapshot] = snapshot(
    session(1),
    session(2, application="", client=None, state="active"),
    session(3, role="\udcff\n*", application="[a", client="fe80::1%eth0", state="idle in transaction"),
    session(4, database=None, client="::ffff:10.2.0.7", idle=None),
)


def check(data: bytes) -> None:
    try:
        settings = read(data, file="x\n\x1b")
    except BadPolicyFile as bad:
        told = bad.mistakes
        assert told
    else:
        told = settings.warnings
        _is_of_use(settings)
    for mistake in told:
        is_sentence(str(mistake))
        assert str(mistake).startswith(r"x\n\x1b:")
        assert mistake.line >= 1
        assert mistake.column >= 1
        assert mistake.line <= data.count(b"\n") + data.count(b"\r") + data.count(b"\xc2\x85") + 1


def _is_of_use(settings: Settings) -> None:
    rules = settings.rules
    questions(_SEEN, rules)
    plan = decide(snapshot=_SEEN, rules=rules, memory=Memory.of(_SEEN))
    assert [verdict.session.id for verdict in plan.verdicts] == [seen.id for seen in _SEEN.sessions]
    for seen in _SEEN.sessions:
        explain(seen, snapshot=_SEEN, rules=rules)
