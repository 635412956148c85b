"""The chain behind a record is the same whether it is read from the beginning or from the end."""

import io
import os
from typing import Final

from reaper.audit.chain import Chain, chain_at_end, walk
from tests.lab.fuzz.targets import record_file

SEEDS: Final = (
    *record_file.SEEDS,
    b'{"schema": 1}\n\n\n{"schema": 2}\ntorn',
    b"torn\n" * 3,
    b'{"schema": 1}',
    b"\n\n",
)
WORDS: Final = (*record_file.WORDS, b"schema", b"\n")


def check(data: bytes) -> None:
    if not data:
        return
    forwards = Chain()
    for number, line in enumerate(walk(io.BytesIO(data), forwards), start=1):
        assert line.number == number
        assert line.fields is not None or line.why
        if line.fields is not None:
            forwards.whole(line.data)
    memory = os.memfd_create("record")
    try:
        os.write(memory, data)
        backwards = chain_at_end(memory, len(data), before=Chain)
    finally:
        os.close(memory)
    assert backwards.head == forwards.head
