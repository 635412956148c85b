"""How parts are read: everything that is wrong with one is refused at once, each with its place."""

import pytest

from reaper.config import fields
from reaper.config.parts import Labelled, OrOff, Part, Several, Unread, Value, Why, maybe, needed, otherwise

TEXT = Value(fields.text, {"type": "string"})
SHORT = Value(fields.name("[a-z]", "write a letter"), {"pattern": "^[a-z]$"})


class Wheel(Part):
    size: int = needed(Value(lambda value: int(str(value)), {}))


class Car(Part):
    name: str = needed(TEXT)
    wheels: list[Wheel] = needed(Several(Wheel, most=4))
    tags: dict[str, list[str]] | None = maybe(Labelled(SHORT, Several(TEXT, or_one=True), most=2))
    spare: Wheel | None = otherwise(OrOff(Wheel), Wheel(size=15))
    colour: str = otherwise(TEXT, "red")


class Truck(Car):
    load: str | None = maybe(TEXT)


def refused(data: object) -> list[tuple[Why, tuple[str | int, ...], bool]]:
    with pytest.raises(Unread) as caught:
        Truck.read(data)
    return [(one.why, one.path, one.of_a_key) for one in caught.value.refusals]


def test_a_part_holds_what_its_readers_make_of_the_map_and_its_defaults() -> None:
    truck = Truck.read({"name": "x", "wheels": [{"size": 3}], "tags": {"a": "b"}, "load": "sand"})

    assert (truck.name, [wheel.size for wheel in truck.wheels]) == ("x", [3])
    assert (truck.tags, truck.colour, truck.load) == ({"a": ["b"]}, "red", "sand")
    assert truck.spare
    assert truck.spare.size == 15


def test_what_is_off_is_nothing() -> None:
    assert Truck.read({"name": "x", "wheels": [{"size": 3}], "spare": "off"}).spare is None


def test_everything_that_is_wrong_is_refused_at_once_where_it_stands() -> None:
    data = {
        "wheels": [{"size": 1}, {}, "round", {"size": 2, "hue": 1}],
        "tags": {"long": []},
        "spare": [],
        "colour": ["red"],
        "sails": 3,
    }

    assert refused(data) == [
        (Why.MISSING, ("name",), False),
        (Why.MISSING, ("wheels", 1, "size"), False),
        (Why.NO_MAP, ("wheels", 2), False),
        (Why.UNKNOWN, ("wheels", 3, "hue"), True),
        (Why.VALUE, ("tags", "long"), True),
        (Why.EMPTY, ("tags", "long"), False),
        (Why.NO_MAP, ("spare",), False),
        (Why.VALUE, ("colour",), False),
        (Why.UNKNOWN, ("sails",), True),
    ]


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("wheels", {}, Why.NO_LIST),
        ("wheels", "one", Why.NO_LIST),
        ("wheels", [], Why.EMPTY),
        ("wheels", [0] * 5, Why.TOO_LONG),
        ("tags", [], Why.NO_MAP),
        ("tags", dict.fromkeys("abc", "x"), Why.TOO_LONG),
    ],
)
def test_what_has_the_wrong_form_or_size_is_refused_without_a_look_at_what_is_in_it(
    key: str, value: object, why: Why
) -> None:
    assert refused({"name": "x", "wheels": [{"size": 1}], key: value}) == [(why, (key,), False)]


@pytest.mark.parametrize("data", [None, [], "car", 3])
def test_what_is_no_map_is_no_part(data: object) -> None:
    assert refused(data) == [(Why.NO_MAP, (), False)]
