"""Other names for a history that somebody else is to read: the same name always gets the same one.

The secret stays in the folder of the files. Where a name is no secret and the built-in protections know it
(`pg_dump`, `pgbouncer`, the roles of managed services) it stays, or the judgement would be another one.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from reaper.policy.protections import is_known_name
from reaper.policy.session import Identity

SECRET_BYTES: Final = 32
_MOST_NAMES: Final = 8_192
_WORD: Final = re.compile(r"[^\W\d_]+")
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_SYLLABLES: Final = 3


class Anonymous(StrEnum):
    """How names are changed."""

    NAMES = "names"
    """Each name as a whole, each address as a whole: nothing is left of them but who is who."""
    WORDS = "words"
    """Each word in a name by itself, and addresses network by network, for globs and networks."""


class Aliases:
    """The other names, by one secret."""

    def __init__(self, secret: bytes, how: Anonymous) -> None:
        self._secret = secret
        self._named: Callable[[str], str] = lru_cache(_MOST_NAMES)(
            self._by_words if how is Anonymous.WORDS else self._as_whole
        )
        self._placed: Callable[[str], str] = lru_cache(_MOST_NAMES)(
            self._by_networks if how is Anonymous.WORDS else self._somewhere
        )

    def identity(self, who: Identity) -> Identity:
        """The same session under other names."""
        return Identity(
            database=who.database and self._named(who.database),
            role=who.role and self.role(who.role),
            application=who.application and self._named(who.application),
            client=who.client and self._placed(who.client),
        )

    def role(self, name: str) -> str:
        """Another name for a role, the watcher's too: it must still know its own."""
        return self._named(name)

    def server(self, name: str) -> str:
        """Another name for a server."""
        return f"server-{self._word(name)}"

    def _as_whole(self, name: str) -> str:
        return name if is_known_name(name) else f"{self._word(name)}-{self._digest(name)[:2].hex()}"

    def _by_words(self, name: str) -> str:
        return name if is_known_name(name) else _WORD.sub(lambda found: self._word(found[0]), name)

    def _word(self, text: str) -> str:
        digest = self._digest(text)
        pairs = zip(digest[: 2 * _SYLLABLES : 2], digest[1 : 2 * _SYLLABLES : 2], strict=True)
        return "".join(_CONSONANTS[a % len(_CONSONANTS)] + _VOWELS[b % len(_VOWELS)] for a, b in pairs)

    def _somewhere(self, client: str) -> str:
        return str(IPv6Address(b"\xfd" + self._digest(client)[:15]))

    def _by_networks(self, client: str) -> str:
        """Whoever was in one network is so still: each octet is changed as those before it say."""
        try:
            address = ip_address(client)
        except ValueError:
            return self._somewhere(client)
        if not isinstance(address, IPv4Address):
            return self._somewhere(client)
        octets = address.packed
        return str(
            IPv4Address(bytes(self._octets(octets[:place])[octets[place]] for place in range(len(octets))))
        )

    def _octets(self, before: bytes) -> list[int]:
        """A permutation: no two networks become one."""
        return sorted(range(256), key=lambda octet: self._digest(f"{before.hex()}.{octet}"))

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
