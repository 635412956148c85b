"""The types of single keys: a reader for the file beside a schema for editors."""

from collections.abc import Iterable
from typing import Final

from reaper.config import fields, patterns, urls, windows
from reaper.config.dsn import dsn
from reaper.config.parts import Value
from reaper.config.webhooks import Occasion
from reaper.policy.protections import SETTABLE
from reaper.policy.rules import GROUP_KEYS, Action, Mode
from reaper.policy.session import STATES

_DURATION: Final = {
    "type": "string",
    "pattern": "^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$",
}
_PERCENT: Final = {
    "type": "string",
    "pattern": r"^(?!0+(\.0+)?%)(0?[0-9]{1,2}(\.[0-9]{1,6})?|100(\.0{1,6})?)%$",
}
_URL: Final = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$", "maxLength": urls.LONGEST}
_POLICY_NAME: Final = "[a-z0-9][a-z0-9-]{0,62}"
_SERVER_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_LABEL_NAME: Final = "[A-Za-z_][A-Za-z0-9_]{0,62}"
_POLICY_NAMES: Final = "write lower-case letters, digits and dashes, at most 63 characters"
_SERVER_NAMES: Final = "write letters, digits, dots, dashes and underscores, at most 63 characters"
_LABEL_NAMES: Final = "write letters, digits and underscores, no digit first, at most 63 characters"


def _word(known: Iterable[str]) -> Value[str]:
    words = [str(word) for word in known]
    return Value(fields.choice(words), {"enum": words})


def _name(pattern: str, instead: str) -> Value[str]:
    return Value(fields.name(pattern, instead), {"type": "string", "pattern": f"^{pattern}$"})


VERSION: Final = Value(fields.version, {"const": 1})
TEXT: Final = Value(fields.text, {"type": "string"})
TRUTH: Final = Value(fields.truth, {"type": "boolean"})
COUNT: Final = Value(fields.whole(0), {"type": "integer", "minimum": 0})
NUMBER: Final = Value(fields.whole(1), {"type": "integer", "minimum": 1})
SHARE: Final = Value(fields.share, _PERCENT)

AGE: Final = Value(fields.duration("1ms", "3650d"), _DURATION)
INTERVAL: Final = Value(fields.duration("1s", "1h"), _DURATION)
BATCH: Final = Value(fields.duration("1s", "1d"), _DURATION)
WITHIN: Final = Value(fields.duration("1s", "10m"), _DURATION)
PAUSE: Final = Value(fields.duration("1s", "7d"), _DURATION)
PRECISION: Final = Value(fields.duration("10ms", "1h"), _DURATION)

POLICY_NAME: Final = _name(_POLICY_NAME, _POLICY_NAMES)
SERVER_NAME: Final = _name(_SERVER_NAME, _SERVER_NAMES)
LABEL_NAME: Final = _name(_LABEL_NAME, _LABEL_NAMES)
DSN: Final = Value(dsn, {"type": "string"})
URL: Final = Value(urls.url, _URL)
URL_FILE: Final = Value(urls.file, {"type": "string", "pattern": "^(?!.*://).+$"})
URL_VARIABLE: Final = Value(urls.variable, {"type": "string", "pattern": f"^{urls.VARIABLE.pattern}$"})

MODE_WORD: Final = _word(Mode)
ACTION_WORD: Final = _word(Action)
STATE: Final = _word(STATES)
OCCASION_WORD: Final = _word(Occasion)
GROUP_KEY: Final = _word(GROUP_KEYS)
PROTECTION: Final = Value(fields.protection, {"enum": list(SETTABLE)})

NAME_GLOB: Final = Value(patterns.named, {"type": "string", "minLength": 1})
APPLICATION_GLOB: Final = Value(patterns.unnamed, {"type": "string"})
CLIENT: Final = Value(patterns.network, {"type": "string", "minLength": 1})
FILES: Final = Value(patterns.files, {"type": "string", "pattern": patterns.EDITOR_FILES})
DURING: Final = Value(windows.window, {"type": "string", "pattern": windows.EDITOR_PATTERN})
