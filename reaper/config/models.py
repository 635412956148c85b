"""The schema of the policy file: every key, its reader, and the sentence that an editor shows for it."""

from typing import Final

from reaper.config import keys
from reaper.config.parts import Labelled, OrOff, Part, Several, maybe, needed, otherwise
from reaper.config.webhooks import Occasion
from reaper.policy.protections import DESCRIPTIONS, SETTABLE
from reaper.policy.rules import Window
from reaper.policy.selector import From, Glob
from reaper.policy.time import Span

MOST_SERVERS: Final = 10_000
"""In one file: servers are rightly listed by machines."""

MOST_PATTERNS: Final = 20
MOST_LABELS: Final = 20

URL_KEYS: Final = ("webhook", "webhook_file", "webhook_env")
AGES: Final = ("idle_for", "transaction_for", "connected_for", "running_for")


_DESPITE: Final = "Built-in protections that this policy sets aside. " + " ".join(
    f"`{name}`: {DESCRIPTIONS[name]}." for name in SETTABLE
)


_VALUES: Final = Several(keys.TEXT, or_one=True)
"""Values of a label, of which any is enough."""


class Selector(Part, schema={"minProperties": 1}):
    """Who is meant. Values inside a key are alternatives; patterns are globs on the whole name."""

    role: list[Glob] | None = maybe(Several(keys.NAME_GLOB))
    """Roles, as globs: `app_*`."""
    database: list[Glob] | None = maybe(Several(keys.NAME_GLOB))
    """Databases, as globs."""
    application: list[Glob] | None = maybe(Several(keys.APPLICATION_GLOB))
    """Application names, as globs; the empty text is a client that gave none."""
    client: list[From] | None = maybe(Several(keys.CLIENT))
    """Networks or single addresses of clients; `local` is the server's own socket."""


class Match(Selector, schema={"required": ["state"], "anyOf": [{"required": [age]} for age in AGES]}):
    """Whom the policy condemns: all of these must hold. A state and at least one age are needed."""

    state: list[str] | None = maybe(Several(keys.STATE))
    """States of the session; `active` stands alone and needs `running_for`."""
    idle_for: Span | None = maybe(keys.AGE)
    """How long in this state: `90s`, `10m`, `1h30m`, `2d`. A keepalive query starts it anew."""
    transaction_for: Span | None = maybe(keys.AGE)
    """How long its transaction has been open."""
    connected_for: Span | None = maybe(keys.AGE)
    """How long it has been connected."""
    running_for: Span | None = maybe(keys.AGE)
    """How long its statement has been running; only with state `active`."""
    blocking: bool = otherwise(keys.TRUTH, default=False)
    """Only sessions that others wait for."""
    holds_back_vacuum: int | None = maybe(keys.NUMBER)
    """Only sessions that keep vacuum from so many transactions or more."""


class When(Part):
    """A condition of the server."""

    connections_used: float = needed(keys.SHARE)
    """The policy acts only when so many of the slots that ordinary roles can use are used: `80%`."""


class Keep(Part):
    """The newest sessions of each group stay."""

    newest: int = needed(keys.NUMBER)
    """How many stay in each group."""
    per: list[str] = needed(Several(keys.GROUP_KEY))
    """What makes a group."""


class Cap(Part):
    """A group may hold so many sessions; the longest idle above that are condemned."""

    most: int = needed(keys.COUNT)
    """How many sessions a group may hold."""
    per: list[str] = needed(Several(keys.GROUP_KEY))
    """What makes a group."""


class Pace(Part):
    """How fast the policy works."""

    per_cycle: int = needed(keys.NUMBER)
    """At most so many sessions in a cycle, the longest idle first."""


class Brake(Part):
    """A plan for more than `above` sessions and more than this share of all clients acts on nobody."""

    share: float | None = maybe(keys.SHARE, shown="50%")
    """The share of all client sessions that is too much."""
    above: int | None = maybe(keys.COUNT, shown=5)
    """Plans for so many sessions or fewer never brake."""


class Churn(Part):
    """A pool that opens a new session for each that goes is left alone for a while, longer each time."""

    within: Span | None = maybe(keys.WITHIN, shown="10s")
    """Who comes so soon after a termination has taken its place; 1s to 10m."""
    share: float | None = maybe(keys.SHARE, shown="90%")
    """From this share of places that were taken again on it is churn."""
    acts: int | None = maybe(keys.NUMBER, shown=10)
    """After so many terminations of the group: same role, database, application and client."""
    pause: Span | None = maybe(keys.PAUSE, shown="10m")
    """For how long the group is left alone the first time, and twice as long each time after that."""
    longest: Span | None = maybe(keys.PAUSE, shown="4h")
    """No pause is longer than this."""


class Policy(Part, schema={"not": {"required": ["keep", "cap"]}}):
    """A named rule. The first policy in the file that matches a session decides."""

    name: str = needed(keys.POLICY_NAME)
    """The name that every record carries."""
    description: str = otherwise(keys.TEXT, "")
    """What it is for, for people."""
    mode: str = otherwise(keys.MODE_WORD, "dry-run")
    """`dry-run` only shows what would happen, `enforce` acts, `off` rests."""
    only: dict[str, list[str]] | None = maybe(Labelled(keys.LABEL_NAME, _VALUES, least=1, most=MOST_LABELS))
    """It concerns only servers that have all of these labels; of several values any is enough."""
    match: Match = needed(Match)
    """Whom the policy condemns: all of these must hold."""
    allowlist: Selector | None = maybe(Selector)
    """Whom it spares all the same: any of these is enough."""
    despite: list[str] | None = maybe(Several(keys.PROTECTION), described=_DESPITE)
    when: When | None = maybe(When)
    """The policy rests unless the server is under this pressure."""
    during: list[Window] | None = maybe(Several(keys.DURING, most=20, or_one=True))
    """The policy acts only then: `Mon-Fri 20:00-06:00 Europe/Berlin`; every day and UTC if not said."""
    keep: Keep | None = maybe(Keep)
    """Of the condemned sessions the newest of each group stay."""
    cap: Cap | None = maybe(Cap)
    """Condemned sessions are taken only from groups that hold too many."""
    action: str = otherwise(keys.ACTION_WORD, "terminate")
    """`terminate` ends the session, `cancel` only its statement (state `active`)."""
    pace: Pace | None = maybe(Pace)
    """How many sessions a cycle takes; 10 if not said."""
    brake: Brake | None = otherwise(OrOff(Brake), Brake())
    """When a plan is too large to be right; `off` belongs beside `when`."""
    churn: Churn | None = otherwise(OrOff(Churn), Churn())
    """When a pool refills at once whatever is taken from it, and is left alone; `off` takes on and on."""


class Server(Part):
    """A server to watch."""

    name: str = needed(keys.SERVER_NAME)
    """The name that records and metrics carry."""
    dsn: str = otherwise(keys.DSN, "")
    """A connection string without a password; what it leaves out comes from libpq's PG* variables."""
    labels: dict[str, str] | None = maybe(Labelled(keys.LABEL_NAME, keys.TEXT, most=MOST_LABELS))
    """What policies may ask of it in their `only`: `{env: prod}`."""


class ServerFile(Part):
    """The list in a file of `servers_from`, as if it stood below a key."""

    servers: list[Server] = needed(Several(Server, least=0, most=MOST_SERVERS))


class Notify(Part, schema={"oneOf": [{"required": [key]} for key in URL_KEYS]}):
    """An address that takes messages about what happened; exactly one key says where its URL is."""

    name: str = needed(keys.POLICY_NAME)
    """The name that logs and metrics carry."""
    webhook: str | None = maybe(keys.URL)
    """The URL itself, of http or https; where it is a secret, use one of the other two."""
    webhook_file: str | None = maybe(keys.URL_FILE)
    """A file that holds the URL, from the policy file's folder on: a mounted secret."""
    webhook_env: str | None = maybe(keys.URL_VARIABLE)
    """An environment variable that holds the URL."""
    on: list[str] | None = maybe(Several(keys.OCCASION_WORD), shown=[str(each) for each in Occasion])
    """What it is told: brakes, servers that hide sessions, failures, terminations, pools that refill."""
    every: Span | None = maybe(keys.BATCH, shown="1m")
    """What happens within this time goes into one message; 1s to 1d."""


class Head(Part):
    """All of the file but its policies."""

    version: int = needed(keys.VERSION)
    """The version of this schema."""
    interval: Span | None = maybe(keys.INTERVAL, shown="10s")
    """A cycle runs at least this often; 1s to 1h."""
    precision: Span | None = maybe(keys.PRECISION, shown="250ms")
    """How soon a cycle may follow the last one when a session falls due; from 10ms to the interval."""
    servers: list[Server] | None = maybe(Several(Server, most=MOST_SERVERS))
    """The servers to watch; without it and `servers_from`, the one that the environment names."""
    servers_from: list[str] | None = maybe(Several(keys.FILES, most=MOST_PATTERNS, or_one=True))
    """Files that list more servers, as globs from the policy file's folder on: `servers.d/*.yaml`."""
    protect: Selector | None = maybe(Selector)
    """Whom no policy ever touches, beside the built-in protections."""
    notify: list[Notify] | None = maybe(Several(Notify))
    """Who is told what happened; nobody, if not said."""


class File(Head, schema={"title": "The policy file of pg-reaper"}):
    """The policies by which pg-reaper ends sessions that hold connections for nothing."""

    policies: list[Policy] = needed(Several(Policy))
    """The policies, in the order in which they are asked."""
