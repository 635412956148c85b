"""The schema of the policy file: every key, its type, and the sentence that an editor shows for it."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from reaper.config import keys
from reaper.config.scalars import Plain
from reaper.config.webhooks import Occasion
from reaper.policy.protections import DESCRIPTIONS, SETTABLE

MOST: Final = 1_000
"""Entries of a list: more were made by a machine that should have written a pattern."""

MOST_SERVERS: Final = 10_000
"""In one file: servers are rightly listed by machines."""

MOST_PATTERNS: Final = 20
MOST_LABELS: Final = 20

URL_KEYS: Final = ("webhook", "webhook_file", "webhook_env")
AGES: Final = ("idle_for", "transaction_for", "connected_for", "running_for")


_DESPITE: Final = "Built-in protections that this policy sets aside. " + " ".join(
    f"`{name}`: {DESCRIPTIONS[name]}." for name in SETTABLE
)


class Part(BaseModel):
    """One map of the file; keys that it does not know are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _off_is_none(value: object) -> object:
    written = value.text if isinstance(value, Plain) else value
    return None if written == "off" else value


def _one_is_a_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _or_off(schema: JsonDict) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "off"}]


def _or_one(schema: JsonDict) -> None:
    several = {key: schema.pop(key) for key in ("type", "items", "minItems", "maxItems")}
    schema["anyOf"] = [several["items"], several]


Values = Annotated[
    list[keys.Text],
    BeforeValidator(_one_is_a_list),
    Field(min_length=1, max_length=MOST, json_schema_extra=_or_one),
]
"""Values of a label, of which any is enough."""


class Selector(Part):
    """Who is meant. Values inside a key are alternatives; patterns are globs on the whole name."""

    model_config = ConfigDict(title="Selector", json_schema_extra={"minProperties": 1})

    role: list[keys.NameGlob] | None = Field(None, min_length=1, max_length=MOST)
    """Roles, as globs: `app_*`."""
    database: list[keys.NameGlob] | None = Field(None, min_length=1, max_length=MOST)
    """Databases, as globs."""
    application: list[keys.ApplicationGlob] | None = Field(None, min_length=1, max_length=MOST)
    """Application names, as globs; the empty text is a client that gave none."""
    client: list[keys.Client] | None = Field(None, min_length=1, max_length=MOST)
    """Networks or single addresses of clients; `local` is the server's own socket."""


class Match(Selector):
    """Whom the policy condemns: all of these must hold. A state and at least one age are needed."""

    model_config = ConfigDict(
        title="Match",
        json_schema_extra={"required": ["state"], "anyOf": [{"required": [age]} for age in AGES]},
    )

    state: list[keys.State] | None = Field(None, min_length=1, max_length=MOST)
    """States of the session; `active` stands alone and needs `running_for`."""
    idle_for: keys.Age | None = None
    """How long in this state: `90s`, `10m`, `1h30m`, `2d`. A keepalive query starts it anew."""
    transaction_for: keys.Age | None = None
    """How long its transaction has been open."""
    connected_for: keys.Age | None = None
    """How long it has been connected."""
    running_for: keys.Age | None = None
    """How long its statement has been running; only with state `active`."""
    blocking: keys.Truth = False
    """Only sessions that others wait for."""
    holds_back_vacuum: keys.Number | None = None
    """Only sessions that keep vacuum from so many transactions or more."""


class When(Part):
    """A condition of the server."""

    connections_used: keys.Share
    """The policy acts only when so many of the slots that ordinary roles can use are used: `80%`."""


class Keep(Part):
    """The newest sessions of each group stay."""

    newest: keys.Number
    """How many stay in each group."""
    per: list[keys.GroupKey] = Field(min_length=1, max_length=MOST)
    """What makes a group."""


class Cap(Part):
    """A group may hold so many sessions; the longest idle above that are condemned."""

    most: keys.Count
    """How many sessions a group may hold."""
    per: list[keys.GroupKey] = Field(min_length=1, max_length=MOST)
    """What makes a group."""


class Pace(Part):
    """How fast the policy works."""

    per_cycle: keys.Number
    """At most so many sessions in a cycle, the longest idle first."""


class Brake(Part):
    """A plan for more than `above` sessions and more than this share of all clients acts on nobody."""

    share: keys.Share | None = Field(None, json_schema_extra={"default": "50%"})
    """The share of all client sessions that is too much."""
    above: keys.Count | None = Field(None, json_schema_extra={"default": 5})
    """Plans for so many sessions or fewer never brake."""


class Churn(Part):
    """A pool that opens a new session for each that goes is left alone for a while, longer each time."""

    within: keys.Within | None = Field(None, json_schema_extra={"default": "10s"})
    """Who comes so soon after a termination has taken its place; 1s to 10m."""
    share: keys.Share | None = Field(None, json_schema_extra={"default": "90%"})
    """From this share of places that were taken again on it is churn."""
    acts: keys.Number | None = Field(None, json_schema_extra={"default": 10})
    """After so many terminations of the group: same role, database, application and client."""
    pause: keys.Pause | None = Field(None, json_schema_extra={"default": "10m"})
    """For how long the group is left alone the first time, and twice as long each time after that."""
    longest: keys.Pause | None = Field(None, json_schema_extra={"default": "4h"})
    """No pause is longer than this."""


class Policy(Part):
    """A named rule. The first policy in the file that matches a session decides."""

    model_config = ConfigDict(json_schema_extra={"not": {"required": ["keep", "cap"]}})

    name: keys.PolicyName
    """The name that every record carries."""
    description: keys.Text = ""
    """What it is for, for people."""
    mode: keys.ModeWord = "dry-run"
    """`dry-run` only shows what would happen, `enforce` acts, `off` rests."""
    only: dict[keys.LabelName, Values] | None = Field(None, min_length=1, max_length=MOST_LABELS)
    """It concerns only servers that have all of these labels; of several values any is enough."""
    match: Match
    """Whom the policy condemns: all of these must hold."""
    allowlist: Selector | None = None
    """Whom it spares all the same: any of these is enough."""
    despite: list[keys.Protection] | None = Field(None, min_length=1, max_length=MOST, description=_DESPITE)
    when: When | None = None
    """The policy rests unless the server is under this pressure."""
    during: Annotated[list[keys.During] | None, BeforeValidator(_one_is_a_list)] = Field(
        None, min_length=1, max_length=20, json_schema_extra=_or_one
    )
    """The policy acts only then: `Mon-Fri 20:00-06:00 Europe/Berlin`; every day and UTC if not said."""
    keep: Keep | None = None
    """Of the condemned sessions the newest of each group stay."""
    cap: Cap | None = None
    """Condemned sessions are taken only from groups that hold too many."""
    action: keys.ActionWord = "terminate"
    """`terminate` ends the session, `cancel` only its statement (state `active`)."""
    pace: Pace | None = None
    """How many sessions a cycle takes; 10 if not said."""
    brake: Annotated[Brake | None, BeforeValidator(_off_is_none)] = Field(
        default_factory=Brake, json_schema_extra=_or_off
    )
    """When a plan is too large to be right; `off` belongs beside `when`."""
    churn: Annotated[Churn | None, BeforeValidator(_off_is_none)] = Field(
        default_factory=Churn, json_schema_extra=_or_off
    )
    """When a pool refills at once whatever is taken from it, and is left alone; `off` takes on and on."""


class Server(Part):
    """A server to watch."""

    name: keys.ServerName
    """The name that records and metrics carry."""
    dsn: keys.Dsn = ""
    """A connection string without a password; what it leaves out comes from libpq's PG* variables."""
    labels: dict[keys.LabelName, keys.Text] | None = Field(None, max_length=MOST_LABELS)
    """What policies may ask of it in their `only`: `{env: prod}`."""


class ServerFile(Part):
    """The list in a file of `servers_from`, as if it stood below a key."""

    servers: list[Server] = Field(max_length=MOST_SERVERS)


class Notify(Part):
    """An address that takes messages about what happened; exactly one key says where its URL is."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in URL_KEYS]})

    name: keys.PolicyName
    """The name that logs and metrics carry."""
    webhook: keys.Url | None = None
    """The URL itself, of http or https; where it is a secret, use one of the other two."""
    webhook_file: keys.UrlFile | None = None
    """A file that holds the URL, from the policy file's folder on: a mounted secret."""
    webhook_env: keys.UrlVariable | None = None
    """An environment variable that holds the URL."""
    on: list[keys.OccasionWord] | None = Field(
        None, min_length=1, max_length=MOST, json_schema_extra={"default": [*Occasion]}
    )
    """What it is told: brakes, servers that hide sessions, failures, terminations, pools that refill."""
    every: keys.Batch | None = Field(None, json_schema_extra={"default": "1m"})
    """What happens within this time goes into one message; 1s to 1d."""


class Head(Part):
    """All of the file but its policies."""

    version: keys.Version
    """The version of this schema."""
    interval: keys.Interval | None = Field(None, json_schema_extra={"default": "10s"})
    """A cycle runs at least this often; 1s to 1h."""
    precision: keys.Precision | None = Field(None, json_schema_extra={"default": "250ms"})
    """How soon a cycle may follow the last one when a session falls due; from 10ms to the interval."""
    servers: list[Server] | None = Field(None, min_length=1, max_length=MOST_SERVERS)
    """The servers to watch; without it and `servers_from`, the one that the environment names."""
    servers_from: Annotated[list[keys.Files] | None, BeforeValidator(_one_is_a_list)] = Field(
        None, min_length=1, max_length=MOST_PATTERNS, json_schema_extra=_or_one
    )
    """Files that list more servers, as globs from the policy file's folder on: `servers.d/*.yaml`."""
    protect: Selector | None = None
    """Whom no policy ever touches, beside the built-in protections."""
    notify: list[Notify] | None = Field(None, min_length=1, max_length=MOST)
    """Who is told what happened; nobody, if not said."""


class File(Head):
    """The policies by which pg-reaper ends sessions that hold connections for nothing."""

    model_config = ConfigDict(title="The policy file of pg-reaper")

    policies: list[Policy] = Field(min_length=1, max_length=MOST)
    """The policies, in the order in which they are asked."""
