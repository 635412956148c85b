"""Every metric as data: the page, README's table, and the tests of the rules and dashboards read it."""

from enum import StrEnum
from typing import Final, NamedTuple


class MetricKind(StrEnum):
    """Prometheus' types."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric with the names of its labels."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    help: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that queries use."""
        if self.kind is MetricKind.HISTOGRAM:
            return tuple(f"{self.name}_{end}" for end in ("bucket", "count", "sum"))
        return (self.name,)


_GAUGE, _COUNTER, _HISTOGRAM = MetricKind
_SERVER: Final = ("server",)
_POLICY: Final = ("server", "policy", "mode")

CATALOGUE: Final = (
    Metric("reaper_build_info", _GAUGE, ("version",), "The running version; always 1"),
    Metric("reaper_start_timestamp_seconds", _GAUGE, (), "Start of this process"),
    Metric("reaper_policy_file_info", _GAUGE, ("digest",), "The policy file in force; always 1"),
    Metric("reaper_interval_seconds", _GAUGE, (), "The longest time between two cycles"),
    Metric("reaper_reload_success", _GAUGE, (), "1 if the last reload of the policy file succeeded"),
    Metric("reaper_reload_last_success_timestamp_seconds", _GAUGE, (), "The last reload that succeeded"),
    Metric("reaper_connected", _GAUGE, _SERVER, "1 while there is a connection"),
    Metric("reaper_denied", _GAUGE, _SERVER, "1 if the server denies access or a right that is needed"),
    Metric("reaper_leader", _GAUGE, _SERVER, "1 if this replica acts on the server; the others stand by"),
    Metric("reaper_last_success_timestamp_seconds", _GAUGE, _SERVER, "The last cycle that succeeded, or 0"),
    Metric("reaper_policies", _GAUGE, ("server", "mode"), "Policies that apply to the server"),
    Metric("reaper_slots_max", _GAUGE, _SERVER, "All connection slots"),
    Metric("reaper_slots_reserved", _GAUGE, _SERVER, "Slots that ordinary roles cannot use"),
    Metric("reaper_slots_used", _GAUGE, _SERVER, "Slots that client sessions use"),
    Metric(
        "reaper_sessions",
        _GAUGE,
        ("server", "state", "application"),
        "Sessions; the ten largest applications by name, at most a hundred names a day, the rest as `other`",
    ),
    Metric("reaper_unreadable_sessions", _GAUGE, _SERVER, "Sessions whose state the reaper may not read"),
    Metric("reaper_oldest_idle_seconds", _GAUGE, _SERVER, "Age of the longest idle session"),
    Metric("reaper_oldest_transaction_seconds", _GAUGE, _SERVER, "Age of the oldest open transaction"),
    Metric("reaper_candidates", _GAUGE, _POLICY, "Sessions that a policy would terminate without limits"),
    Metric(
        "reaper_skipped",
        _GAUGE,
        ("server", "reason"),
        "Sessions that a policy matches and skips: by a protection's name, `allowlist`, or a limit's name",
    ),
    Metric(
        "reaper_outcomes_total",
        _COUNTER,
        (*_POLICY, "outcome"),
        "Outcomes of planned terminations: terminated, dry-run, woke, ...",
    ),
    Metric("reaper_safety_limit_trips_total", _COUNTER, _POLICY, "Plans that exceeded the safety limit"),
    Metric("reaper_refill_guard_pauses_total", _COUNTER, _POLICY, "Pools that the refill guard paused"),
    Metric(
        "reaper_dry_run_outcomes_total",
        _COUNTER,
        (*_POLICY, "outcome"),
        "What sessions did after their dry run: unused (for as long again), left, revived, unknown",
    ),
    Metric(
        "reaper_failures_total",
        _COUNTER,
        ("server", "kind"),
        "Failures by kind: unreachable, denied, cycle, audit_log",
    ),
    Metric("reaper_clock_steps_total", _COUNTER, _SERVER, "Jumps of the server's clock"),
    Metric("reaper_cycle_seconds", _HISTOGRAM, _SERVER, "Duration of a cycle"),
    Metric(
        "reaper_lateness_seconds",
        _HISTOGRAM,
        _SERVER,
        "Time from a session's deadline to its termination, unless a limit skipped it",
    ),
    Metric("reaper_notifications_total", _COUNTER, ("hook", "result"), "Messages to webhooks: sent, failed"),
    Metric("reaper_notification_lines_dropped_total", _COUNTER, ("hook",), "Lines that were never sent"),
    Metric("reaper_audit_table_connected", _GAUGE, (), "1 while the audit table's server is connected"),
    Metric("reaper_audit_table_lag_seconds", _GAUGE, (), "Age of the oldest entry not in the audit table"),
    Metric("reaper_audit_table_lag_bytes", _GAUGE, (), "Bytes of the audit log not in the audit table"),
    Metric(
        "reaper_audit_table_last_success_timestamp_seconds",
        _GAUGE,
        (),
        "The last answer of the audit table, or 0",
    ),
    Metric("reaper_audit_table_entries_total", _COUNTER, (), "Entries that the audit table took"),
    Metric(
        "reaper_audit_table_failures_total",
        _COUNTER,
        ("kind",),
        "Failures by kind: unreachable, denied, file, missed",
    ),
)

NAMES: Final = frozenset(name for metric in CATALOGUE for name in metric.series)
"""Every name that a query may use."""
