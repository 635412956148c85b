import pytest

from reaper.config import BadPolicyFile, Mistake, read


def mistakes(text: str) -> list[str]:
    with pytest.raises(BadPolicyFile) as refused:
        read(text.encode(), file="x")
    return str(refused.value).splitlines()


def test_what_only_follows_from_another_mistake_is_not_told() -> None:
    """A mistyped age is an unknown key; that the policy now lacks an age is no news."""
    text = "version: 1\npolicies:\n  - {name: a, match: {state: [idle], idle_fro: 10m}}\n"
    assert [line.split(": ")[2] for line in mistakes(text)] == [
        "unknown key 'idle_fro'; did you mean 'idle_for'?"
    ]


def test_policies_that_cannot_be_read_at_all_do_not_hide_the_others() -> None:
    text = "version: 1\npolicies:\n  - nothing\n  - {name: a, match: {state: [idle]}}\n  - {name: b}\n"
    assert [line.split(": ")[1] for line in mistakes(text)] == [
        "policies[0]",
        "policies[1].match",
        "policies[2]",
    ]


def test_mistakes_come_in_the_order_of_the_file_and_can_be_taken_apart() -> None:
    with pytest.raises(BadPolicyFile) as refused:
        read(b"version: 2\npolicies: []\n", file="x")
    assert refused.value.mistakes == (
        Mistake(
            file="x",
            line=1,
            column=10,
            where="version",
            what="2 is not a known version",
            instead="write 1",
        ),
        Mistake(
            file="x",
            line=2,
            column=11,
            where="policies",
            what="the list is empty",
            instead="write a list such as [{name: leaked, match: {state: idle, idle_for: 10m}}]",
        ),
    )


def test_warnings_never_refuse_a_file() -> None:
    text = b"version: 1\npolicies:\n  - {name: a, match: {state: [idle, idle], idle_for: 1m}}\n"
    assert len(read(text, file="x").warnings) == 1
