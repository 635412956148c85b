"""Aliases for the names in a history that leaves the organisation: the same name always gets the same alias.

Each word of a name and each octet of an address is replaced by itself, so that globs and networks still fit.
The secret stays in the folder of the files. Names that the built-in protections know (`pg_dump`, `pgbouncer`,
the roles of managed services) are public and stay, because policies would decide differently without them.
"""

import hashlib
import hmac
import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from reaper.policy.protections import is_known_name
from reaper.policy.session import Identity

SECRET_BYTES: Final = 32
_MAX_CACHED: Final = 8_192
_WORD: Final = re.compile(r"[^\W\d_]+")
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_SYLLABLES: Final = 3


class Aliases:
    """The aliases made with one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.name = lru_cache(_MAX_CACHED)(self._name)
        """Returns the alias of a database, a role or an application."""
        self._client = lru_cache(_MAX_CACHED)(self._address)

    def identity(self, identity: Identity) -> Identity:
        """Return the same identity under aliases."""
        return Identity(
            database=identity.database and self.name(identity.database),
            role=identity.role and self.name(identity.role),
            application=identity.application and self.name(identity.application),
            client=identity.client and self._client(identity.client),
        )

    def server(self, name: str) -> str:
        """Return the alias of a server."""
        return f"server-{self._word(name)}"

    def _name(self, name: str) -> str:
        return name if is_known_name(name) else _WORD.sub(lambda found: self._word(found[0]), name)

    def _word(self, text: str) -> str:
        digest = self._digest(text)
        pairs = zip(digest[: 2 * _SYLLABLES : 2], digest[1 : 2 * _SYLLABLES : 2], strict=True)
        return "".join(_CONSONANTS[a % len(_CONSONANTS)] + _VOWELS[b % len(_VOWELS)] for a, b in pairs)

    def _address(self, client: str) -> str:
        """Return an address; two IPv4 addresses of one network stay in one network."""
        try:
            octets = IPv4Address(client).packed
        except AddressValueError:
            return str(IPv6Address(b"\xfd" + self._digest(client)[:15]))
        return str(
            IPv4Address(bytes(self._octet(octets[:place], octet) for place, octet in enumerate(octets)))
        )

    def _octet(self, before: bytes, octet: int) -> int:
        # A permutation of all octets: two networks never become one.
        order = sorted(range(256), key=lambda each: self._digest(f"{before.hex()}.{each}"))
        return order[octet]

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
