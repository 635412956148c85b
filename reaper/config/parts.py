"""From plain data to the parts of a file: whole, or everything that is refused at once, each with its place.

A part is one map of the file, and each of its keys has a reader. Written out here and not left to a library,
for a service keeps what reads its policy file for as long as it lives: pydantic would take 8 MB with it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from reaper.config.mistakes import TOP, Path
from reaper.config.scalars import Plain
from reaper.config.wording import BadValue

MOST: Final = 1_000
"""Entries of a list: more were made by a machine that should have written a pattern."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Why(Enum):
    """Why something is refused."""

    VALUE = auto()
    """Its reader said so, in words."""
    MISSING = auto()
    UNKNOWN = auto()
    NO_MAP = auto()
    NO_LIST = auto()
    EMPTY = auto()
    TOO_LONG = auto()


class Refusal(NamedTuple):
    """One thing that cannot be taken as it stands."""

    why: Why
    path: Path
    value: object
    what: str = ""
    instead: str = ""
    most: int = 0
    of_a_key: bool = False
    """Whether it is the key at this place that is wrong, and not what it holds."""


class Unread(Exception):
    """What was to be read, refused in one or more places."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__(self.refusals)


class Reader(Protocol[T_co]):
    """Makes of plain data what is meant, or raises Unread."""

    def read(self, value: object, at: Path, /) -> T_co:
        """What stands at this place."""


@dataclass(frozen=True, slots=True, eq=False)
class Value(Generic[T]):
    """A single value: who reads it, and what an editor may know of it."""

    reader: Callable[[object], T]
    schema: Mapping[str, object]

    def read(self, value: object, at: Path, /) -> T:
        """As the reader says."""
        try:
            return self.reader(value)
        except BadValue as bad:
            raise Unread([Refusal(Why.VALUE, at, value, bad.what, bad.instead)]) from None


@dataclass(frozen=True, slots=True, eq=False)
class Several(Generic[T]):
    """A list; where `or_one`, a single text may stand for a list of it."""

    item: Reader[T]
    least: int = 1
    most: int = MOST
    or_one: bool = False

    def read(self, value: object, at: Path, /) -> list[T]:
        """Every item, or all that is wrong with any."""
        items = [value] if self.or_one and isinstance(value, str) else value
        if not isinstance(items, list):
            raise Unread([Refusal(Why.NO_LIST, at, value)])
        _measure(items, at, least=self.least, most=self.most)
        found, refused = [], _Refused()
        for number, item in enumerate(items):
            with refused:
                found.append(self.item.read(item, (*at, number)))
        refused.end()
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Generic[T]):
    """A map whose keys are names of the user's own."""

    label: Value[str]
    item: Reader[T]
    least: int = 0
    most: int = MOST

    def read(self, value: object, at: Path, /) -> dict[str, T]:
        """Every item below its name, or all that is wrong with any."""
        if not isinstance(value, dict):
            raise Unread([Refusal(Why.NO_MAP, at, value)])
        _measure(value, at, least=self.least, most=self.most)
        found, refused = dict[str, T](), _Refused()
        for name, item in value.items():
            here = (*at, name)
            with refused:
                self._check(name, here)
            with refused:
                found[name] = self.item.read(item, here)
        refused.end()
        return found

    def _check(self, name: str, at: Path) -> None:
        try:
            self.label.read(name, at)
        except Unread as error:
            raise Unread(refusal._replace(of_a_key=True) for refusal in error.refusals) from None


@dataclass(frozen=True, slots=True, eq=False)
class OrOff(Generic[T]):
    """What can be switched off."""

    inner: Reader[T]

    def read(self, value: object, at: Path, /) -> T | None:
        """Nothing, if that is what is written."""
        written = value.text if isinstance(value, Plain) else value
        return None if written == "off" else self.inner.read(value, at)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Key:
    """A key of a part."""

    reader: Reader[object]
    needed: bool = False
    default: object = None
    shown: object = None
    """The default as an editor shows it."""
    described: str | None = None
    """Its sentence for editors, where it does not stand below it."""


def needed(reader: Reader[T]) -> T:
    """A key that must be written."""
    return cast("T", Key(reader=reader, needed=True))


def maybe(reader: Reader[T], *, shown: object = None, described: str | None = None) -> T | None:
    """A key that may be left out."""
    return cast("T | None", Key(reader=reader, shown=shown, described=described))


def otherwise(reader: Reader[T], default: T) -> T:
    """A key that means this when it is left out."""
    shown = None if isinstance(default, Part) else default
    return cast("T", Key(reader=reader, default=default, shown=shown))


class Part:
    """One map of the file; keys that it does not know are mistakes."""

    keys: ClassVar[Mapping[str, Key]] = {}
    schema: ClassVar[Mapping[str, object]] = {}
    """What an editor is to know of the map as a whole."""

    def __init_subclass__(cls, *, schema: Mapping[str, object] | None = None) -> None:
        """Gather the keys of a part, those of the one that it enlarges first."""
        cls.keys = {**cls.keys, **{name: key for name, key in vars(cls).items() if isinstance(key, Key)}}
        cls.schema = schema or {}

    def __init__(self, **written: Any) -> None:  # noqa: ANN401 (each is what its reader makes of it)
        vars(self).update({name: written.get(name, key.default) for name, key in self.keys.items()})

    @classmethod
    def read(cls, value: object, at: Path = TOP, /) -> Self:
        """The part that this map stands for, or everything that is wrong with it."""
        if not isinstance(value, dict):
            raise Unread([Refusal(Why.NO_MAP, at, value)])
        written, refused = dict[str, object](), _Refused()
        for name, key in cls.keys.items():
            with refused:
                if name in value:
                    written[name] = key.reader.read(value[name], (*at, name))
                elif key.needed:
                    raise Unread([Refusal(Why.MISSING, (*at, name), value)])
        for name in value:
            with refused:
                if name not in cls.keys:
                    raise Unread([Refusal(Why.UNKNOWN, (*at, name), value[name], of_a_key=True)])
        refused.end()
        return cls(**written)


class _Refused:
    """Collects what is refused, so that one mistake hides no other."""

    def __init__(self) -> None:
        self._refusals: list[Refusal] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> bool:
        if not isinstance(error, Unread):
            return False
        self._refusals += error.refusals
        return True

    def end(self) -> None:
        """Refuse the whole if anything of it was."""
        if self._refusals:
            raise Unread(self._refusals)


def _measure(entries: list[object] | dict[str, object], at: Path, *, least: int, most: int) -> None:
    if len(entries) < least:
        raise Unread([Refusal(Why.EMPTY, at, entries)])
    if len(entries) > most:
        raise Unread([Refusal(Why.TOO_LONG, at, entries, most=most)])
