"""What a rehearsal has shown, for people: a sentence first, then the numbers that it rests on."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from reaper.cli.show import console, print_table
from reaper.policy.held import held_words
from reaper.policy.session import Identity, whose
from reaper.policy.spans import SECOND, Span, words
from reaper.telemetry.plain import plain

_MOST_APPLICATIONS: Final = 8
_MOST_POOLS: Final = 10
_MARKS: Final = {"safe": ("yes", "green"), "not yet": ("no", "red"), "too little seen": ("?", "yellow")}


def print_assessments(found: Sequence[Mapping[str, Any]], left_alone: Sequence[Mapping[str, Any]]) -> None:
    """Print the documents of `as_document`, one policy after the other, and the pools that refill."""
    out = console()
    if not found:
        out.print("Nothing was rehearsed.")
    for number, one in enumerate(found):
        if number:
            out.print()
        mark, style = _MARKS.get(str(one["advice"]), ("?", "yellow"))
        out.print(Text.assemble((plain(one["policy"]), "bold"), "  ", (mark, f"bold {style}")))
        out.print(Text(plain(one["said"]), style=style))
        for key, said in _lines(one):
            out.print(Text.assemble((f"  {key:22}", "dim"), plain(said)))
        if len(one["applications"]) > 1:
            out.print()
            _print_applications(one)
    if left_alone:
        out.print()
        out.print(Text("Pools that refill at once", "bold"))
    for pool in left_alone[:_MOST_POOLS]:
        who = whose(Identity(*(pool[key] for key in Identity._fields)))
        out.print(Text(plain(f"{who}: {pool['reason']} ({pool['policy']} at {pool['server']})")))
    if len(left_alone) > _MOST_POOLS:
        out.print(f"and {len(left_alone) - _MOST_POOLS} more")


def _lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    at = f" at {one['servers']} servers" if one["servers"] > 1 else ""
    lines = [
        (
            "would have terminated",
            f"{_many(one['acts'], 'session')} of {_many(_applications(one), 'application')}{at}",
        ),
        (
            "would have freed",
            f"{_many(one['slots_at_once'], 'slot')} at once, {one['session_hours']:g} session-hours",
        ),
        ("used again", f"{one['revived']}{_after(one)}"),
        ("not used again", f"{one['unused']}, and {one['left']} more left by themselves"),
    ]
    if held := held_words(one["held_back"]):
        lines.insert(1, ("more, at once", f"held back: {held}"))
    if one["regret"] is not None:
        sure = f"up to {_percent(one['regret_up_to'])} with 95 % confidence"
        lines.append(("regret", f"{_percent(one['regret'])}, {sure}"))
    if one["left"]:
        worst = _percent(one["regret_if_all_who_left_were_used"])
        lines.append(("", f"{worst} if all who left were used unseen just before"))
    if one["limit"]:
        limit = one["limit"]
        met = f"{limit['revived']} of the {limit['judged']} that it would have met"
        lines.append(("less than 1 %", f"at {limit['key']}: {limit['limit']}, {met}"))
    if one["too_soon"] or one["unknown"]:
        lines.append(("not counted", f"{one['too_soon']} too soon to tell, {one['unknown']} unknown"))
    if one["earlier_acts"]:
        lines.append(("left out", f"{one['earlier_acts']} by earlier policy files; --any-rules counts them"))
    return lines


def _after(one: Mapping[str, Any]) -> str:
    if one["revived_after_s"] is None:
        return ""
    return f", half of them within {words(Span(round(one['revived_after_s'] * SECOND)))}"


def _applications(one: Mapping[str, Any]) -> int:
    return len(one["applications"]) + int(one["more_applications"])


def _print_applications(one: Mapping[str, Any]) -> None:
    shown = one["applications"][:_MOST_APPLICATIONS]
    rows = [
        {
            "application": each["application"] or "(unnamed)",
            "unused": each["unused"],
            "left": each["left"],
            "used_again": each["revived"],
            "regret": "" if each["regret"] is None else _percent(each["regret"]),
        }
        for each in shown
    ]
    print_table(rows)
    if more := _applications(one) - len(shown):
        console().print(f"and {more} more")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _many(count: int, one: str) -> str:
    return f"{count} {one if count == 1 else one + 's'}"
