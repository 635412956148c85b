"""The schema of the policy file: every key, its reader, its sentence in editors, and what it builds."""

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.config import JsonDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from reaper.config import patterns, values
from reaper.config.settings import LabelSelector, Occasion, Server
from reaper.config.yaml_tree import PlainScalar
from reaper.policy import rules
from reaper.policy.match import Match
from reaper.policy.protections import DESCRIPTIONS, OVERRIDABLE
from reaper.policy.refill_guard import RefillGuard
from reaper.policy.selector import NO_KEYS, From, Glob, Selector
from reaper.policy.session import STATES
from reaper.policy.time import Duration

MOST: Final = 1_000
"""Entries of a list: a longer one was generated, and a pattern would be shorter."""

MOST_SERVERS: Final = 10_000
MOST_FEW: Final = 20
"""Labels, windows of time, and globs of files."""

URL_KEYS: Final = ("webhook", "webhook_file", "webhook_env")
AGES: Final = ("idle_for", "transaction_for", "connected_for", "running_for")

T = TypeVar("T")
_PROTECTIONS: Final = "Built-in protections that this policy overrides. " + " ".join(
    f"`{name}`: {DESCRIPTIONS[name]}." for name in OVERRIDABLE
)


def _read(reader: Callable[[object], object], schema: JsonSchemaValue) -> PlainValidator:
    """Leave everything to the reader, and show this schema to editors: pydantic converts nothing."""
    return PlainValidator(reader, json_schema_input_type=Annotated[object, WithJsonSchema(schema)])


def _text(reader: Callable[[object], object], **schema: object) -> PlainValidator:
    return _read(reader, {"type": "string", **schema})


def _duration(least: str, most: str) -> PlainValidator:
    return _text(values.duration(least, most), pattern=values.DURATION_PATTERN)


def _word(*known: str) -> PlainValidator:
    words = list(map(str, known))
    return _read(values.choice(words), {"enum": words})


def _name(pattern: str, rule: str) -> PlainValidator:
    rule = f"write {rule}, at most 63 characters"
    return _text(values.name(pattern, rule), pattern=f"^{pattern}$")


Text = Annotated[str, _text(values.text)]
Count = Annotated[int, _read(values.whole(0), {"type": "integer", "minimum": 0})]
Number = Annotated[int, _read(values.whole(1), {"type": "integer", "minimum": 1})]
Share = Annotated[float, _text(values.share, pattern=values.SHARE_PATTERN)]
Age = Annotated[Duration, _duration("1ms", "3650d")]
Interval = Annotated[Duration, _duration("1s", "1h")]
MinInterval = Annotated[Duration, _duration("10ms", "1h")]
Batch = Annotated[Duration, _duration("1s", "1d")]
Refill = Annotated[Duration, _duration("1s", "10m")]
Pause = Annotated[Duration, _duration("1s", "7d")]
Version = Annotated[int, _read(values.version, {"const": 1})]
Truth = Annotated[bool, _read(values.truth, {"type": "boolean"})]
State = Annotated[str, _word(*STATES)]
ModeWord = Annotated[str, _word(*rules.Mode)]
ActionWord = Annotated[str, _word(*rules.Action)]
GroupKey = Annotated[str, _word(*rules.GROUP_KEYS)]
Event = Annotated[str, _word(*Occasion)]
Protection = Annotated[str, _read(values.protection, {"enum": list(OVERRIDABLE)})]
Dsn = Annotated[str, _text(patterns.dsn)]
PolicyName = Annotated[str, _name("[a-z0-9][a-z0-9-]{0,62}", "lower-case letters, digits and dashes")]
LabelName = Annotated[
    str, _name("[A-Za-z_][A-Za-z0-9_]{0,62}", "letters, digits and underscores, no digit first")
]
ServerName = Annotated[
    str, _name("[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "letters, digits, dots, dashes and underscores")
]
NameGlob = Annotated[Glob, _text(patterns.name_glob, minLength=1)]
ApplicationGlob = Annotated[Glob, _text(patterns.application_glob)]
Client = Annotated[From, _text(patterns.network, minLength=1)]
Files = Annotated[str, _text(patterns.files, pattern=patterns.FILES_PATTERN)]
During = Annotated[rules.Window, _text(values.window, pattern=values.WINDOW_PATTERN)]
Url = Annotated[str, _text(patterns.url, pattern=patterns.URL_PATTERN, maxLength=patterns.LONGEST_URL)]
UrlFile = Annotated[str, _text(patterns.url_file, pattern="^(?!.*://).+$")]
UrlVariable = Annotated[str, _text(patterns.url_variable, pattern=f"^{patterns.VARIABLE}$")]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str | PlainScalar) else value


def _none_is_off(value: object) -> object:
    return None if value == "none" else value


def _or_none(schema: JsonDict) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "none"}]


Several = Annotated[tuple[T, ...], Field(min_length=1, max_length=MOST), BeforeValidator(_as_list)]
"""A list, or a single value."""

Few = Annotated[tuple[T, ...], Field(min_length=1, max_length=MOST_FEW), BeforeValidator(_as_list)]


def _key(default: object, sentence: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    return Field(default, description=sentence)


def _spelled(default: str, sentence: str) -> Any:  # noqa: ANN401 - as pydantic's Field
    """A key with a default that is validated like a value of the file."""
    return Field(default, description=sentence, validate_default=True)


class Section(BaseModel):
    """One map of the file; keys that it does not know are mistakes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        model_title_generator=lambda section: section.__name__.removesuffix("Section"),
    )


class SelectorSection(Section):
    """Selects sessions. One of the values of a key is enough; patterns are globs on the whole name."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    role: Several[NameGlob] = _key((), "Roles, as globs: `app_*`.")
    database: Several[NameGlob] = _key((), "Databases, as globs.")
    application: Several[ApplicationGlob] = _key((), "Application names, as globs; empty if none was set.")
    client: Several[Client] = _key((), "Networks or addresses; `local` is the server's own socket.")

    def selector(self) -> Selector:
        """The selector of the policy package."""
        return Selector(
            role=self.role, database=self.database, application=self.application, client=self.client
        )


class MatchSection(SelectorSection):
    """The sessions that the policy matches: all keys must hold. A state and at least one age are needed."""

    model_config = ConfigDict(
        json_schema_extra={"required": ["state"], "anyOf": [{"required": [age]} for age in AGES]}
    )

    state: Several[State] = _key((), "States; `active` stands alone and needs `running_for`.")
    idle_for: Age | None = _key(None, "Time in this state, such as `10m`; a keepalive query starts it anew.")
    transaction_for: Age | None = _key(None, "Age of the transaction.")
    connected_for: Age | None = _key(None, "Age of the connection.")
    running_for: Age | None = _key(None, "Age of the running statement; only with state `active`.")
    blocking: Truth = Field(default=False, description="Only sessions that other sessions wait for.")
    xmin_age: Number | None = _key(None, "Minimum age of the session's snapshot, in transactions.")

    def build(self) -> Match:
        """The criteria of the policy package."""
        ages = {age: getattr(self, age) for age in AGES}
        return Match(
            states=self.state,
            selector=self.selector(),
            xmin_age=self.xmin_age,
            blocking=self.blocking,
            **ages,
        )


class WhenSection(Section):
    """A condition of the server."""

    slots_used: Share = Field(description="The share of the slots for ordinary roles that is used: `80%`.")


class _PerGroup(Section):
    per: Several[GroupKey] = Field(description="The columns that make a group.")


class KeepSection(_PerGroup):
    """Skips the newest sessions of each group."""

    newest: Number = Field(description="The number of sessions that are kept in each group.")


class MaxSessionsSection(_PerGroup):
    """Limits the sessions of each group; those idle longest above the limit are terminated."""

    count: Count = Field(description="The number of sessions that a group may have.")


class SafetyLimitSection(Section):
    """A plan for more than `above` sessions and more than this share of all clients is not carried out."""

    share: Share = _spelled("50%", "The share of all client sessions that one cycle may terminate.")
    above: Count = _key(5, "Plans for at most this number of sessions are always carried out.")


class RefillGuardSection(Section):
    """Pauses for pools that reopen every terminated session; each pause is twice as long as the last."""

    within: Refill = _spelled("10s", "The longest time until a new session replaces a terminated one.")
    share: Share = _spelled("90%", "The share of terminated sessions that must have been replaced.")
    after: Number = _key(10, "The terminations in one group before the guard judges it.")
    pause: Pause = _spelled("10m", "The first pause of a group.")
    max_pause: Pause = _spelled("4h", "The longest pause.")

    def build(self) -> RefillGuard:
        """The refill guard of the policy package."""
        return RefillGuard(
            within=self.within, share=self.share, acts=self.after, pause=self.pause, longest=self.max_pause
        )


class PolicySection(Section):
    """A named rule. The first policy in the file that matches a session decides."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["keep", "max_sessions"]}})

    name: PolicyName = Field(description="The name in logs, metrics and the audit log.")
    description: Text = _key("", "A description for people.")
    mode: ModeWord = _key("dry-run", "`dry-run` only shows what would happen, `enforce` acts.")
    servers: Annotated[dict[LabelName, Several[Text]], Field(min_length=1, max_length=MOST_FEW)] = _key(
        {}, "Applies only to servers that have all of these labels; one of several values is enough."
    )
    match: MatchSection = Field(description="The sessions that the policy matches; all keys must hold.")
    allowlist: SelectorSection | None = _key(None, "Skips sessions that match one of these values.")
    override_protections: Several[Protection] = _key((), _PROTECTIONS)
    when: WhenSection | None = _key(None, "The policy acts only under this condition of the server.")
    during: Few[During] = _key((), "The policy acts only then: `Mon-Fri 20:00-06:00 Europe/Berlin`.")
    keep: KeepSection | None = _key(None, "Of each group of sessions, the newest are skipped.")
    max_sessions: MaxSessionsSection | None = _key(None, "Skips groups that have no more sessions than this.")
    action: ActionWord = _key("terminate", "`cancel` ends only the statement of an `active` session.")
    max_per_cycle: Number = _key(10, "The most sessions that one cycle terminates, longest idle first.")
    safety_limit: Annotated[SafetyLimitSection | None, BeforeValidator(_none_is_off)] = Field(
        SafetyLimitSection(),
        description="A plan larger than this is not carried out; use `none` only with `when`.",
        json_schema_extra=_or_none,
    )
    refill_guard: Annotated[RefillGuardSection | None, BeforeValidator(_none_is_off)] = Field(
        RefillGuardSection(),
        description="Pauses for pools that reopen every terminated session; `none` never pauses.",
        json_schema_extra=_or_none,
    )

    def build(self) -> rules.Policy:
        """The policy of the policy package."""
        keep, most, limit = self.keep, self.max_sessions, self.safety_limit
        return rules.Policy(
            name=self.name,
            description=self.description,
            mode=rules.Mode(self.mode),
            match=self.match.build(),
            allowlist=self.allowlist.selector() if self.allowlist else NO_KEYS,
            overrides=frozenset(self.override_protections),
            when=rules.When(self.when.slots_used) if self.when else None,
            during=self.during,
            keep=rules.Keep(newest=keep.newest, per=keep.per) if keep else None,
            max_sessions=rules.MaxSessions(most=most.count, per=most.per) if most else None,
            action=rules.Action(self.action),
            max_per_cycle=self.max_per_cycle,
            safety_limit=rules.SafetyLimit(share=limit.share, above=limit.above) if limit else None,
            refill_guard=self.refill_guard.build() if self.refill_guard else None,
        )

    def labels(self) -> LabelSelector:
        """The servers that the policy applies to."""
        return LabelSelector(tuple((name, frozenset(self.servers[name])) for name in sorted(self.servers)))


class ServerSection(Section):
    """A server to watch."""

    name: ServerName = Field(description="The name in logs, metrics and the audit log.")
    dsn: Dsn = _key("", "A connection string without a password; libpq's PG* variables complete it.")
    labels: Annotated[dict[LabelName, Text], Field(max_length=MOST_FEW)] = _key(
        {}, "Labels for the `servers` of policies: `{env: prod}`."
    )

    def build(self) -> Server:
        """The server as the service watches it."""
        return Server(name=self.name, dsn=self.dsn, labels=tuple(sorted(self.labels.items())))


class ServerFileSection(Section):
    """The list in a file of `servers_from`, as if it stood below a key."""

    servers: Annotated[tuple[ServerSection, ...], Field(max_length=MOST_SERVERS)]


class NotifySection(Section):
    """A URL that receives messages about events; exactly one key names the URL."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in URL_KEYS]})

    name: PolicyName = Field(description="The name in logs and metrics.")
    webhook: Url | None = _key(None, "The URL itself; if it is secret, use one of the other two keys.")
    webhook_file: UrlFile | None = _key(None, "A file that contains it, relative to the policy file.")
    webhook_env: UrlVariable | None = _key(None, "An environment variable that contains it.")
    on: Several[Event] = _key(tuple(map(str, Occasion)), "The events to report; all of them by default.")
    every: Batch = _spelled("1m", "Events within this time go into one message; 1s to 1d.")


class HeadSection(Section):
    """All of the file but its policies."""

    version: Version = Field(description="The version of this schema.")
    interval: Interval = _spelled("10s", "The longest time between two cycles; 1s to 1h.")
    min_interval: MinInterval = _spelled("250ms", "The shortest time between two cycles; at least 10ms.")
    servers: Annotated[tuple[ServerSection, ...], Field(min_length=1, max_length=MOST_SERVERS)] = _key(
        (), "The servers to watch; without it and `servers_from`, the one that the environment names."
    )
    servers_from: Few[Files] = _key((), "Files that list more servers, as globs: `servers.d/*.yaml`.")
    protect: SelectorSection | None = _key(None, "Sessions that no policy ever touches.")
    notify: Annotated[tuple[NotifySection, ...], Field(min_length=1, max_length=MOST)] = _key(
        (), "Webhooks that report events."
    )


class FileSection(HeadSection):
    """The policies by which pg-reaper terminates idle sessions."""

    model_config = ConfigDict(title="The policy file of pg-reaper")

    policies: Annotated[tuple[PolicySection, ...], Field(min_length=1, max_length=MOST)] = Field(
        description="The policies, in the order in which they decide."
    )


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
        if not shown.get("default") or isinstance(shown["default"], dict):
            shown.pop("default", None)
        return shown


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the policy file, for editors."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **FileSection.model_json_schema(schema_generator=_EditorSchema)}
