"""The types of single keys: a reader for the file beside a schema for editors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from reaper.config import fields, patterns, urls, windows
from reaper.config.dsn import dsn
from reaper.config.webhooks import Occasion
from reaper.policy.protections import SETTABLE
from reaper.policy.rules import GROUP_KEYS, Action, Mode, Window
from reaper.policy.selector import From, Glob
from reaper.policy.session import STATES
from reaper.policy.spans import Span


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """How one kind of value is read, and what an editor may know of it."""

    reader: Callable[[object], object]
    schema: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Leave everything to the reader: pydantic converts nothing."""
        return core_schema.no_info_plain_validator_function(self.reader)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Show what was written for editors."""
        return dict(self.schema)


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


def _word(known: Iterable[str]) -> Read:
    words = [str(word) for word in known]
    return Read(fields.choice(words), {"enum": words})


def _name(pattern: str, instead: str) -> Read:
    return Read(fields.name(pattern, instead), {"type": "string", "pattern": f"^{pattern}$"})


Version = Annotated[int, Read(fields.version, {"const": 1})]
Text = Annotated[str, Read(fields.text, {"type": "string"})]
Truth = Annotated[bool, Read(fields.truth, {"type": "boolean"})]
Count = Annotated[int, Read(fields.whole(0), {"type": "integer", "minimum": 0})]
Number = Annotated[int, Read(fields.whole(1), {"type": "integer", "minimum": 1})]
Share = Annotated[float, Read(fields.share, _PERCENT)]

Age = Annotated[Span, Read(fields.duration("1ms", "3650d"), _DURATION)]
Interval = Annotated[Span, Read(fields.duration("1s", "1h"), _DURATION)]
Batch = Annotated[Span, Read(fields.duration("1s", "1d"), _DURATION)]
Within = Annotated[Span, Read(fields.duration("1s", "10m"), _DURATION)]
Pause = Annotated[Span, Read(fields.duration("1s", "7d"), _DURATION)]
Precision = Annotated[Span, Read(fields.duration("10ms", "1h"), _DURATION)]

PolicyName = Annotated[str, _name(_POLICY_NAME, _POLICY_NAMES)]
ServerName = Annotated[str, _name(_SERVER_NAME, _SERVER_NAMES)]
LabelName = Annotated[str, _name(_LABEL_NAME, _LABEL_NAMES)]
Dsn = Annotated[str, Read(dsn, {"type": "string"})]
Url = Annotated[str, Read(urls.url, _URL)]
UrlFile = Annotated[str, Read(urls.file, {"type": "string", "pattern": "^(?!.*://).+$"})]
UrlVariable = Annotated[str, Read(urls.variable, {"type": "string", "pattern": f"^{urls.VARIABLE.pattern}$"})]

ModeWord = Annotated[str, _word(Mode)]
ActionWord = Annotated[str, _word(Action)]
State = Annotated[str, _word(STATES)]
OccasionWord = Annotated[str, _word(Occasion)]
GroupKey = Annotated[str, _word(GROUP_KEYS)]
Protection = Annotated[str, Read(fields.protection, {"enum": list(SETTABLE)})]

NameGlob = Annotated[Glob, Read(patterns.named, {"type": "string", "minLength": 1})]
ApplicationGlob = Annotated[Glob, Read(patterns.unnamed, {"type": "string"})]
Client = Annotated[From, Read(patterns.network, {"type": "string", "minLength": 1})]
Files = Annotated[str, Read(patterns.files, {"type": "string", "pattern": patterns.EDITOR_FILES})]
During = Annotated[Window, Read(windows.window, {"type": "string", "pattern": windows.EDITOR_PATTERN})]
