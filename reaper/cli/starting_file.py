"""Writing a starting policy file: understood before it is written, and never over another one unasked."""

from pathlib import Path
from typing import Final

import click

from reaper.cli.exits import Defect, Misconfigured
from reaper.config import BadPolicyFile, read
from reaper.config.draft import draft
from reaper.policy.advice.evidence import Evidence
from reaper.policy.advice.proposals import proposals
from reaper.policy.advice.wording import about, many, watched
from reaper.policy.rules import Mode
from reaper.policy.spans import isoformat
from reaper.telemetry.plain import plain

STDOUT: Final = "-"


def write_policy(evidence: Evidence, target: str, *, overwrite: bool) -> None:
    """Write it to this file, or to stdout."""
    text = starting_file(evidence)
    if target == STDOUT:
        click.echo(text, nl=False)
        return
    path = Path(target)
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"{path}: is there already, and is left as it is; name another file, or say --overwrite"
        raise Misconfigured(message) from None
    except OSError as error:
        message = f"{path}: cannot be written: {error.strerror or error}"
        raise Misconfigured(message) from None
    told = f"{path}: written; every policy in it is a dry run. Next: reaper plan -p {path}"
    click.echo(plain(told), err=True)


def starting_file(evidence: Evidence) -> str:
    """Its text, which `reaper check` has nothing against."""
    text = draft(proposals(evidence), about=_about(evidence))
    try:
        settings = read(text.encode(), file="what was drafted")
    except BadPolicyFile as bad:
        raise _broken(str(bad)) from None
    harmful = [policy.name for policy in settings.rules.policies if policy.mode is not Mode.DRY_RUN]
    if settings.warnings or harmful:
        raise _broken("; ".join([*map(str, settings.warnings), *harmful]))
    return text


def _broken(why: str) -> Defect:
    message = f"the policy file that was drafted is not in order, and was not written: {why}"
    return Defect(message)


def _about(evidence: Evidence) -> list[str]:
    at = (isoformat(evidence.last.at) or "")[:19]
    seen = f"{many(len(evidence.last.sessions), 'session')} seen {watched(evidence)}"
    return [
        (
            f"Drafted by `reaper advise --policy` for {evidence.last.server!r} at {at} UTC: {seen}, where "
            f"{about(evidence.quiet)} counted as idle for long."
        ),
        "",
        (
            "Every policy is a rehearsal: `reaper plan` shows what it means now, `reaper run` records what "
            "it would have done, and only `mode: enforce` lets it act. Read the reasons, and change what you "
            "know better."
        ),
        "",
        (
            "Not said below, and so as always: at most 10 sessions a policy and cycle (pace), and none at "
            "all when more than half of all clients would go (brake). Both count for each policy by "
            "itself: let one policy act, look how it goes, and then the next."
        ),
    ]
