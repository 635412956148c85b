"""A proxy that looks like a pooler: the pid of the login message is not the session's pid."""

import re
from asyncio import StreamReader, StreamWriter
from typing import Final

from .proxy import Proxy

_CHUNK: Final = 65_536
# BackendKeyData with its pid and secret, and the ReadyForQuery that ends the login.
_KEY: Final = re.compile(rb"(K\x00\x00\x00\x0c).{4}(.{4}Z\x00\x00\x00\x05I)", re.DOTALL)


def _under_another_pid(found: re.Match[bytes]) -> bytes:
    return found[1] + (1).to_bytes(4, "big") + found[2]


class Pooler(Proxy):
    """Forwards everything unchanged except the pid."""

    async def _pump(self, source: StreamReader, sink: StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            sink.write(_KEY.sub(_under_another_pid, chunk))
            await sink.drain()
        sink.close()
