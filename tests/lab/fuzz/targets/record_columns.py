"""Whatever stands in a line of the record, what goes into a table can be stored there."""

from datetime import datetime
from typing import Final

from reaper.audit.tail import NUMBERS, columns
from tests.lab.fuzz.targets import record_file

SEEDS: Final = tuple(line for seed in record_file.SEEDS for line in seed.splitlines()[:3])
WORDS: Final = record_file.WORDS


def check(data: bytes) -> None:
    row = columns(data)
    assert row.keys() == columns(b"").keys()
    for name, value in row.items():
        match value:
            case str():
                assert "\0" not in value
                value.encode()
            case int() if name in NUMBERS:
                assert not isinstance(value, bool)
                assert abs(value) < NUMBERS[name]
            case _:
                assert value is None or isinstance(value, datetime | bool | bytes)
