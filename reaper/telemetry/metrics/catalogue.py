"""Every metric, as data: what is exposed, what README lists, and what rules and dashboards may ask for."""

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What Prometheus takes a metric for."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Family(NamedTuple):
    """One metric with all its labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    told: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries use."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (self.name,)


_SERVER: Final = ("server",)
_POLICY: Final = ("server", "policy", "mode")

CATALOGUE: Final = (
    Family("reaper_build_info", Kind.GAUGE, ("version",), "The version that runs; always 1"),
    Family("reaper_start_timestamp_seconds", Kind.GAUGE, (), "When this process began"),
    Family("reaper_rules_info", Kind.GAUGE, ("digest",), "The policy file in force; always 1"),
    Family("reaper_interval_seconds", Kind.GAUGE, (), "A cycle runs at least so often"),
    Family("reaper_reload_success", Kind.GAUGE, (), "Whether the last reload of the policy file succeeded"),
    Family("reaper_reload_last_success_timestamp_seconds", Kind.GAUGE, (), "When a reload last succeeded"),
    Family("reaper_connected", Kind.GAUGE, _SERVER, "Whether there is a connection"),
    Family("reaper_refused", Kind.GAUGE, _SERVER, "Whether the reaper may not see or act there"),
    Family("reaper_leader", Kind.GAUGE, _SERVER, "Whether this replica acts here; the others stand by"),
    Family(
        "reaper_last_success_timestamp_seconds",
        Kind.GAUGE,
        _SERVER,
        "When a cycle last ended well; 0 before the first",
    ),
    Family("reaper_policies", Kind.GAUGE, ("server", "mode"), "Policies that concern this server"),
    Family("reaper_slots_max", Kind.GAUGE, _SERVER, "All connection slots"),
    Family("reaper_slots_reserved", Kind.GAUGE, _SERVER, "Slots that ordinary roles cannot use"),
    Family("reaper_slots_used", Kind.GAUGE, _SERVER, "Slots that client sessions use"),
    Family(
        "reaper_sessions",
        Kind.GAUGE,
        ("server", "state", "application"),
        "Sessions; the ten largest applications by name, at most a hundred names a day, the rest as `other`",
    ),
    Family("reaper_unreadable_sessions", Kind.GAUGE, _SERVER, "Sessions that hide their state from us"),
    Family("reaper_oldest_idle_seconds", Kind.GAUGE, _SERVER, "The age of the longest idle session"),
    Family(
        "reaper_oldest_transaction_seconds", Kind.GAUGE, _SERVER, "The age of the oldest open transaction"
    ),
    Family("reaper_candidates", Kind.GAUGE, _POLICY, "Sessions that a policy condemns, before restraints"),
    Family(
        "reaper_spared",
        Kind.GAUGE,
        ("server", "by"),
        "Sessions that a policy matches and that live: by a protection's name, an allowlist, a restraint",
    ),
    Family(
        "reaper_outcomes_total",
        Kind.COUNTER,
        (*_POLICY, "outcome"),
        "What became of condemned sessions: terminated, rehearsed, woke, ...",
    ),
    Family("reaper_brake_trips_total", Kind.COUNTER, _POLICY, "Plans that took too many, not carried out"),
    Family(
        "reaper_churn_total",
        Kind.COUNTER,
        _POLICY,
        "Groups that refilled at once, and that the policy began to leave alone for a while",
    ),
    Family(
        "reaper_rehearsal_fates_total",
        Kind.COUNTER,
        (*_POLICY, "fate"),
        "What became of rehearsed sessions: unused for as long as they had been idle, left, revived, unknown",
    ),
    Family(
        "reaper_failures_total",
        Kind.COUNTER,
        ("server", "kind"),
        "What went wrong: away, refused, cycle, record",
    ),
    Family(
        "reaper_clock_steps_total",
        Kind.COUNTER,
        _SERVER,
        "Times that the server's clock jumped; a cycle that sees it touches nobody",
    ),
    Family("reaper_cycle_seconds", Kind.HISTOGRAM, _SERVER, "How long a cycle takes"),
    Family(
        "reaper_lateness_seconds",
        Kind.HISTOGRAM,
        _SERVER,
        "The end of a session minus its deadline, unless a restraint held it back",
    ),
    Family(
        "reaper_notifications_total", Kind.COUNTER, ("hook", "result"), "Messages to webhooks: sent, failed"
    ),
    Family(
        "reaper_notification_lines_dropped_total",
        Kind.COUNTER,
        ("hook",),
        "Lines that a webhook never got: too many, or it was gone too long",
    ),
    Family(
        "reaper_record_table_connected",
        Kind.GAUGE,
        (),
        "Whether the record's table on another server is reached",
    ),
    Family(
        "reaper_record_table_lag_seconds",
        Kind.GAUGE,
        (),
        "How long the oldest line has waited; 0 when all are there",
    ),
    Family(
        "reaper_record_table_lag_bytes",
        Kind.GAUGE,
        (),
        "Bytes of the record that are not there yet; of compressed copies, as they are",
    ),
    Family(
        "reaper_record_table_last_success_timestamp_seconds",
        Kind.GAUGE,
        (),
        "When the table last took lines, or was asked; 0 before the first time",
    ),
    Family("reaper_record_table_lines_total", Kind.COUNTER, (), "Lines that the table took"),
    Family(
        "reaper_record_table_failures_total",
        Kind.COUNTER,
        ("kind",),
        "What went wrong on the way there: away, refused, file, missed",
    ),
)

NAMES: Final = frozenset(name for family in CATALOGUE for name in family.series)
"""Every name that a query may use."""
