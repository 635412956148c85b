"""The schema of the policy file: every key, its reader, its sentence in editors, and what it builds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from reaper.config import patterns, values
from reaper.config.settings import DEFAULT_INTERVAL, DEFAULT_MIN_INTERVAL, LabelSelector, Occasion, Server
from reaper.config.yaml_tree import PlainScalar
from reaper.policy import rules
from reaper.policy.match import Match
from reaper.policy.protections import DESCRIPTIONS, SETTABLE
from reaper.policy.refill_guard import DEFAULT_CHURN, Churn
from reaper.policy.selector import From, Glob, Selector
from reaper.policy.session import STATES
from reaper.policy.time import SECOND, Span

MOST: Final = 1_000
"""Entries of a list: a longer one was generated, and a pattern would be shorter."""

MOST_SERVERS: Final = 10_000
MOST_LABELS: Final = 20
MOST_SERVER_FILES: Final = 20
MOST_WINDOWS: Final = 20

URL_KEYS: Final = ("webhook", "webhook_file", "webhook_env")
AGES: Final = ("idle_for", "transaction_for", "connected_for", "running_for")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The reader of a value, and what editors check of it."""

    reader: Callable[[object], object]
    schema: Mapping[str, object]

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Leave everything to the reader: pydantic converts nothing."""
        return core_schema.no_info_plain_validator_function(self.reader)

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self.schema)


def _duration(least: str, most: str) -> _Read:
    return _Read(values.duration(least, most), {"type": "string", "pattern": values.DURATION_PATTERN})


def _word(*known: str) -> _Read:
    return _Read(values.choice(map(str, known)), {"enum": [str(word) for word in known]})


def _name(pattern: str, rule: str) -> _Read:
    return _Read(values.name(pattern, rule), {"type": "string", "pattern": f"^{pattern}$"})


def _text(reader: Callable[[object], object], **schema: object) -> _Read:
    return _Read(reader, {"type": "string", **schema})


Version = Annotated[int, _Read(values.version, {"const": 1})]
Text = Annotated[str, _text(values.text)]
Truth = Annotated[bool, _Read(values.truth, {"type": "boolean"})]
Count = Annotated[int, _Read(values.whole(0), {"type": "integer", "minimum": 0})]
Number = Annotated[int, _Read(values.whole(1), {"type": "integer", "minimum": 1})]
Share = Annotated[float, _text(values.share, pattern=values.SHARE_PATTERN)]
Age = Annotated[Span, _duration("1ms", "3650d")]
Pause = Annotated[Span, _duration("1s", "7d")]
PolicyName = Annotated[
    str,
    _name("[a-z0-9][a-z0-9-]{0,62}", "write lower-case letters, digits and dashes, at most 63 characters"),
]
ServerName = Annotated[
    str,
    _name(
        "[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
        "write letters, digits, dots, dashes and underscores, at most 63 characters",
    ),
]
LabelName = Annotated[
    str,
    _name(
        "[A-Za-z_][A-Za-z0-9_]{0,62}",
        "write letters, digits and underscores, no digit first, at most 63 characters",
    ),
]
NameGlob = Annotated[Glob, _text(patterns.name_glob, minLength=1)]
ApplicationGlob = Annotated[Glob, _text(patterns.application_glob)]
Client = Annotated[From, _text(patterns.network, minLength=1)]
Files = Annotated[str, _text(patterns.files, pattern=patterns.FILES_PATTERN)]
During = Annotated[rules.Window, _text(values.window, pattern=values.WINDOW_PATTERN)]
GroupKey = Annotated[str, _word(*rules.GROUP_KEYS)]
State = Annotated[str, _word(*STATES)]
Protection = Annotated[str, _Read(values.protection, {"enum": list(SETTABLE)})]
Url = Annotated[
    str, _text(patterns.url, pattern="^[Hh][Tt][Tt][Pp][Ss]?://[!-~]+$", maxLength=patterns.LONGEST_URL)
]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | PlainScalar) and value != "" else value


def _none_is_off(value: object) -> object:
    return None if value == "none" else value


def _or_none(schema: JsonDict) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "none"}]


Several = Annotated[tuple[T, ...], Field(min_length=1, max_length=MOST), BeforeValidator(_as_list)]
"""A list, or a single value."""


class Entry(BaseModel):
    """One map of the file; keys that it does not know are mistakes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        model_title_generator=lambda entry: entry.__name__.removesuffix("Entry"),
    )


class SelectorEntry(Entry):
    """Selects sessions. One of the values of a key is enough; patterns are globs on the whole name."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    role: Several[NameGlob] = ()
    """Roles, as globs: `app_*`."""
    database: Several[NameGlob] = ()
    """Databases, as globs."""
    application: Several[ApplicationGlob] = ()
    """Application names, as globs; the empty text is a client that set none."""
    client: Several[Client] = ()
    """Networks or single addresses of clients; `local` is the server's own socket."""

    def selector(self) -> Selector:
        """The selector of the policy package."""
        return Selector(
            role=self.role, database=self.database, application=self.application, client=self.client
        )


class MatchEntry(SelectorEntry):
    """The sessions that the policy matches: all keys must hold. A state and at least one age are needed."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["state"], "anyOf": [{"required": [age]} for age in AGES]}
    )

    state: Several[State] = ()
    """States of the session; `active` stands alone and needs `running_for`."""
    idle_for: Age | None = None
    """Time in this state: `90s`, `10m`, `1h30m`, `2d`. A keepalive query starts it anew."""
    transaction_for: Age | None = None
    """Age of the transaction."""
    connected_for: Age | None = None
    """Age of the connection."""
    running_for: Age | None = None
    """Age of the running statement; only with state `active`."""
    blocking: Truth = False
    """Only sessions that other sessions wait for."""
    xmin_age: Number | None = None
    """Only sessions whose snapshot is at least this number of transactions old."""

    def build(self) -> Match:
        """The criteria of the policy package."""
        return Match(
            states=self.state,
            selector=self.selector(),
            idle_for=self.idle_for,
            transaction_for=self.transaction_for,
            connected_for=self.connected_for,
            running_for=self.running_for,
            holds_back_vacuum=self.xmin_age,
            blocking=self.blocking,
        )


class WhenEntry(Entry):
    """A condition of the server."""

    slots_used: Share
    """The policy acts only if this share of the slots for ordinary roles is used: `80%`."""


class KeepEntry(Entry):
    """Skips the newest sessions of each group."""

    newest: Number
    """The number of sessions that are kept in each group."""
    per: Several[GroupKey]
    """The columns that make a group."""


class MaxSessionsEntry(Entry):
    """Limits the sessions of each group; those idle longest above the limit are terminated."""

    count: Count
    """The number of sessions that a group may have."""
    per: Several[GroupKey]
    """The columns that make a group."""

    def build(self) -> rules.Cap:
        """The limit of the policy package."""
        return rules.Cap(most=self.count, per=self.per)


class SafetyLimitEntry(Entry):
    """A plan for more than `above` sessions and more than this share of all clients is not carried out."""

    share: Share = Field(rules.DEFAULT_BRAKE.share, json_schema_extra={"default": "50%"})
    """The share of all client sessions that one cycle may terminate."""
    above: Count = rules.DEFAULT_BRAKE.above
    """Plans for at most this number of sessions are always carried out."""

    def build(self) -> rules.Brake:
        """The safety limit of the policy package."""
        return rules.Brake(share=self.share, above=self.above)


class RefillGuardEntry(Entry):
    """Pauses for pools that reopen every terminated session; each pause is twice as long as the last."""

    within: Annotated[Span, _duration("1s", "10m")] = Field(
        DEFAULT_CHURN.within, json_schema_extra={"default": "10s"}
    )
    """A session that connects this soon after a termination has replaced it; 1s to 10m."""
    share: Share = Field(DEFAULT_CHURN.share, json_schema_extra={"default": "90%"})
    """The share of terminated sessions that must have been replaced."""
    after: Number = DEFAULT_CHURN.acts
    """The number of terminations in a group (same role, database, application and client) that are judged."""
    pause: Pause = Field(DEFAULT_CHURN.pause, json_schema_extra={"default": "10m"})
    """The first pause of a group."""
    max_pause: Pause = Field(DEFAULT_CHURN.longest, json_schema_extra={"default": "4h"})
    """The longest pause."""

    def build(self) -> Churn:
        """The refill guard of the policy package."""
        return Churn(
            within=self.within, share=self.share, acts=self.after, pause=self.pause, longest=self.max_pause
        )


class PolicyEntry(Entry):
    """A named rule. The first policy in the file that matches a session decides."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["keep", "max_sessions"]}})

    name: PolicyName
    """The name in logs, metrics and the audit log."""
    description: Text = ""
    """A description for people."""
    mode: Annotated[str, _word(*rules.Mode)] = "dry-run"
    """`dry-run` only shows what would happen, `enforce` acts, `disabled` does nothing."""
    servers: Annotated[dict[LabelName, Several[Text]], Field(min_length=1, max_length=MOST_LABELS)] = {}
    """Applies only to servers that have all of these labels; one of several values is enough."""
    match: MatchEntry
    """The sessions that the policy matches: all keys must hold."""
    allowlist: SelectorEntry | None = None
    """Sessions that are skipped although they match: one value is enough."""
    override_protections: Several[Protection] = Field(
        (),
        description="Built-in protections that this policy overrides. "
        + " ".join(f"`{name}`: {DESCRIPTIONS[name]}." for name in SETTABLE),
    )
    when: WhenEntry | None = None
    """The policy acts only under this condition of the server."""
    during: Annotated[
        tuple[During, ...], Field(min_length=1, max_length=MOST_WINDOWS), BeforeValidator(_as_list)
    ] = ()
    """The policy acts only at these times: `Mon-Fri 20:00-06:00 Europe/Berlin`; by default always."""
    keep: KeepEntry | None = None
    """Of each group of sessions, the newest are skipped."""
    max_sessions: MaxSessionsEntry | None = None
    """Terminates only sessions of groups that have more than this."""
    action: Annotated[str, _word(*rules.Action)] = "terminate"
    """`terminate` ends the session, `cancel` only its statement (state `active`)."""
    max_per_cycle: Number = rules.DEFAULT_PACE
    """The most sessions that one cycle terminates, the longest idle first."""
    safety_limit: Annotated[SafetyLimitEntry | None, BeforeValidator(_none_is_off)] = Field(
        SafetyLimitEntry(), json_schema_extra=_or_none
    )
    """A plan larger than this is not carried out; use `none` only with `when`."""
    refill_guard: Annotated[RefillGuardEntry | None, BeforeValidator(_none_is_off)] = Field(
        RefillGuardEntry(), json_schema_extra=_or_none
    )
    """Pauses for pools that reopen every terminated session; `none` never pauses."""

    def build(self) -> rules.Policy:
        """The policy of the policy package."""
        return rules.Policy(
            name=self.name,
            description=self.description,
            mode=rules.Mode(self.mode),
            match=self.match.build(),
            allowlist=self.allowlist.selector() if self.allowlist else Selector(),
            despite=frozenset(self.override_protections),
            when=rules.When(self.when.slots_used) if self.when else None,
            during=self.during,
            keep=rules.Keep(newest=self.keep.newest, per=self.keep.per) if self.keep else None,
            cap=self.max_sessions.build() if self.max_sessions else None,
            action=rules.Action(self.action),
            pace=self.max_per_cycle,
            brake=self.safety_limit.build() if self.safety_limit else None,
            churn=self.refill_guard.build() if self.refill_guard else None,
        )

    def labels(self) -> LabelSelector:
        """The servers that the policy applies to."""
        labels = sorted(self.servers.items())
        return LabelSelector(tuple((name, frozenset(allowed)) for name, allowed in labels))


class ServerEntry(Entry):
    """A server to watch."""

    name: ServerName
    """The name in logs, metrics and the audit log."""
    dsn: Annotated[str, _text(patterns.dsn)] = ""
    """A connection string without a password; what it leaves out comes from libpq's PG* variables."""
    labels: Annotated[dict[LabelName, Text], Field(max_length=MOST_LABELS)] = {}
    """Labels for the `servers` of policies: `{env: prod}`."""

    def build(self) -> Server:
        """The server as the service watches it."""
        return Server(name=self.name, dsn=self.dsn, labels=tuple(sorted(self.labels.items())))


class ServerFileEntry(Entry):
    """The list in a file of `servers_from`, as if it stood below a key."""

    servers: Annotated[tuple[ServerEntry, ...], Field(max_length=MOST_SERVERS)]


class NotifyEntry(Entry):
    """A URL that receives messages about events; exactly one key names the URL."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in URL_KEYS]})

    name: PolicyName
    """The name in logs and metrics."""
    webhook: Url | None = None
    """The URL itself, http or https; if it is secret, use one of the other two keys."""
    webhook_file: Annotated[str, _text(patterns.url_file, pattern="^(?!.*://).+$")] | None = None
    """A file that contains the URL, such as a mounted secret; relative to the policy file."""
    webhook_env: Annotated[str, _text(patterns.url_variable, pattern=f"^{patterns.VARIABLE}$")] | None = None
    """An environment variable that contains the URL."""
    on: Several[Annotated[str, _word(*Occasion)]] = Field(
        tuple(Occasion), json_schema_extra={"default": [str(each) for each in Occasion]}
    )
    """The events to report; all of them by default."""
    every: Annotated[Span, _duration("1s", "1d")] = Field(
        Span(60 * SECOND), json_schema_extra={"default": "1m"}
    )
    """Events within this time go into one message; 1s to 1d."""


class HeadEntry(Entry):
    """All of the file but its policies."""

    version: Version
    """The version of this schema."""
    interval: Annotated[Span, _duration("1s", "1h")] = Field(
        DEFAULT_INTERVAL, json_schema_extra={"default": "10s"}
    )
    """The longest time between two cycles; 1s to 1h."""
    min_interval: Annotated[Span, _duration("10ms", "1h")] = Field(
        DEFAULT_MIN_INTERVAL, json_schema_extra={"default": "250ms"}
    )
    """The shortest time between two cycles, when a session becomes due; from 10ms to the interval."""
    servers: Annotated[tuple[ServerEntry, ...], Field(min_length=1, max_length=MOST_SERVERS)] = ()
    """The servers to watch; without it and `servers_from`, the one that the environment names."""
    servers_from: Annotated[
        tuple[Files, ...], Field(min_length=1, max_length=MOST_SERVER_FILES), BeforeValidator(_as_list)
    ] = ()
    """Files that list more servers, as globs relative to the policy file: `servers.d/*.yaml`."""
    protect: SelectorEntry | None = None
    """Sessions that no policy ever touches, in addition to the built-in protections."""
    notify: Annotated[tuple[NotifyEntry, ...], Field(min_length=1, max_length=MOST)] = ()
    """Where events are reported to."""


class FileEntry(HeadEntry):
    """The policies by which pg-reaper terminates idle sessions."""

    model_config = ConfigDict(title="The policy file of pg-reaper")

    policies: Annotated[tuple[PolicyEntry, ...], Field(min_length=1, max_length=MOST)]
    """The policies, in the order in which they decide."""


class _EditorSchema(GenerateJsonSchema):
    """The schema of what people write: a key has a value or is left out, and nothing is ever null."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        several = super().tuple_schema(schema)
        item = several["items"]
        return several if "$ref" in item else {"anyOf": [item, several]}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        return {**super().dict_schema(schema), "additionalProperties": False}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        shown = super().default_schema(schema)
        if isinstance(shown.get("default"), dict | list | None):
            shown.pop("default", None)
        return shown


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the policy file, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **FileEntry.model_json_schema(schema_generator=_EditorSchema)}
