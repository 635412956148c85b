import pytest

from reaper.config import BadPolicyFile, read
from reaper.policy.rules import Policy
from reaper.policy.time import SECOND


def policy(match: str = "", more: str = "") -> Policy:
    text = f"version: 1\npolicies:\n  - name: a\n    match: {{state: [idle], idle_for: 1m{match}}}\n{more}"
    return read(text.encode(), file="x").rules.policies[0]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("3650d", 315_360_000)],
)
def test_a_duration_is_read_as_it_is_spelled(written: str, seconds: float) -> None:
    assert policy(f", connected_for: {written}").match.connected_for == seconds * SECOND


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10 minutes", 600), ("5 min", 300), ("1 day", 86_400), ("1 hour 30 minutes", 5400), ("30 sec", 30)],
)
def test_a_duration_may_be_written_in_words(written: str, seconds: float) -> None:
    assert policy(f", connected_for: {written}").match.connected_for == seconds * SECOND


@pytest.mark.parametrize(
    "written", ["1.5h", "10  m", "'10m '", "min", "-5m", "10M", "1e3", "0x10", "10", "1m1h", "٣m", "''"]
)
def test_an_invalid_duration_is_refused(written: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"connected_for: "):
        policy(f", connected_for: {written}")


@pytest.mark.parametrize(
    ("written", "share"), [("80%", 0.8), ("80.5%", 0.805), ("100%", 1.0), ("0.1%", 0.001), ('"5%"', 0.05)]
)
def test_a_share_is_a_percentage(written: str, share: float) -> None:
    when = policy(more=f"    when: {{slots_used: {written}}}\n").when
    assert when
    assert when.slots_used == share


@pytest.mark.parametrize(
    "written", ["100.1%", "0%", "0.0%", "80 %", "-5%", "'%'", "1e1%", "80", "1", ".5", "''"]
)
def test_an_invalid_share_is_refused(written: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"slots_used: "):
        policy(more=f"    when: {{slots_used: {written}}}\n")


@pytest.mark.parametrize(
    ("days", "numbers"),
    [
        ("Mon-Fri ", {0, 1, 2, 3, 4}),
        ("Fri-Mon ", {4, 5, 6, 0}),
        ("Sat,Sun ", {5, 6}),
        ("Mon-Tue,Sun ", {0, 1, 6}),
        ("Sun-Sat ", set(range(7))),
        ("Wed-Wed ", {2}),
        ("", set(range(7))),
    ],
)
def test_days_may_be_ranges_lists_and_wrap_around_the_week(days: str, numbers: set[int]) -> None:
    (window,) = policy(more=f"    during: {days}08:00-24:00\n").during
    assert window.days == numbers
    assert (window.start, window.end) == (480, 1440)


@pytest.mark.parametrize(
    "written",
    [
        "24:00-08:00",
        "08:00-24:01",
        "8:00-9:00",
        "08:60-09:00",
        "Mon 08:00",
        "mon 08:00-09:00",
        "08:00-09:00 ../UTC",
    ],
)
def test_an_invalid_window_is_refused(written: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"during"):
        policy(more=f"    during: {written}\n")


@pytest.mark.parametrize("written", ["[a]", "[!a]", "[]a]", "[!]a]", "[[]", "[a-z]*", "[?*]", "a]", "[!a-]"])
def test_a_closed_set_is_a_pattern(written: str) -> None:
    assert policy(f', role: ["{written}"]').match.selector.role[0].text == written


@pytest.mark.parametrize("written", ["[", "a[", "[]", "[!]", "[a]b[", "[z-a]", "[[:alpha:]]"])
def test_an_invalid_set_is_refused(written: str) -> None:
    with pytest.raises(BadPolicyFile, match=r"role\[0\]: "):
        policy(f', role: ["{written}"]')


def test_sixty_three_bytes_are_the_longest_name_that_matches() -> None:
    assert policy(f', role: ["{"ä" * 31}x", "{"ä" * 40}*"]').match.selector.role
    with pytest.raises(BadPolicyFile, match="PostgreSQL truncates names to 63 bytes"):
        policy(f', role: ["{"ä" * 32}"]')


def test_texts_without_quotes_stay_texts() -> None:
    selector = policy(
        ", role: [null_user, yes-man, 1e3], client: 10.1.2.3, application: v1.2.3"
    ).match.selector
    assert [glob.text for glob in selector.role] == ["null_user", "yes-man", "1e3"]


def test_a_dsn_may_point_to_the_places_where_passwords_belong() -> None:
    text = """
version: 1
servers:
  - {name: a, dsn: "host=db passfile=/run/secrets/pgpass user=reaper"}
  - {name: b, dsn: "service=orders"}
  - {name: c, dsn: "postgresql://reaper@[::1]:5432/postgres?sslmode=verify-full"}
  - {name: d, dsn: ""}
policies: [{name: a, match: {state: [idle], idle_for: 1m}}]
"""
    assert [server.name for server in read(text.encode(), file="x").servers] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "dsn",
    [
        *("password=hunter2", "PASSWORD = hunter2", "host=db password='hunter2'", "postgres://u:hunter2@db"),
        *("postgres://u:hunter2%40@db/x", "postgres://db?password=hunter2", "host=db passwd=hunter2"),
        *("postgres://db?ssl%70assword=hunter2", "dbname='postgres://u:hunter2@db/x'", "host=db hunter2"),
        *("postgresql://reaper:7/hunter2@db/postgres", "postgresql://reaper:7@hunter2@db/postgres"),
        *("host=db password=hunter2 nonsense", "host=db password hunter2"),
    ],
)
def test_no_message_repeats_a_dsn(dsn: str) -> None:
    text = f'version: 1\nservers: [{{name: a, dsn: "{dsn}"}}]\npolicies: []\n'
    with pytest.raises(BadPolicyFile) as refused:
        read(text.encode(), file="x")
    assert "servers[0].dsn: " in str(refused.value)
    assert "hunter2" not in str(refused.value) + repr(refused.value) + repr(refused.value.__cause__)
