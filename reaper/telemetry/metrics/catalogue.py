"""Every metric as data: the page of help, and the tests of the rules and dashboards read it."""

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


_POLICY: Final = ("server", "policy", "mode")
_SESSIONS: Final = (
    "Sessions; the ten largest applications by name, at most a hundred names a day, the rest as `other`"
)
_SKIPPED: Final = (
    "Sessions that a policy matches and skips: by a protection's name, `allowlist`, or a limit's name"
)
_LATENESS: Final = "Time from a session's deadline to its termination, unless a limit skipped it"
_OUTCOMES: Final = "Outcomes of planned terminations: terminated, dry-run, changed, ..."
_AFTER_DRY_RUN: Final = (
    "What sessions did after their dry run: unused (for as long again), left, used-again, unknown"
)

_GAUGES: Final[tuple[tuple[str, ...], ...]] = (
    ("pg_reaper_build_info", "The running version; always 1", "version"),
    ("pg_reaper_start_timestamp_seconds", "Start of this process"),
    ("pg_reaper_policy_file_info", "The policy file in force; always 1", "digest"),
    ("pg_reaper_interval_seconds", "The longest time between two cycles"),
    ("pg_reaper_reload_success", "1 if the last reload of the policy file succeeded"),
    ("pg_reaper_reload_last_success_timestamp_seconds", "The last reload that succeeded"),
    ("pg_reaper_connected", "1 while there is a connection", "server"),
    ("pg_reaper_denied", "1 if the server denies access, or a right that the reaper needs", "server"),
    ("pg_reaper_leader", "1 if this replica acts on the server; the others stand by", "server"),
    (
        "pg_reaper_last_success_timestamp_seconds",
        "The last cycle that succeeded; 0 before the first",
        "server",
    ),
    ("pg_reaper_policies", "Policies that apply to the server", "server", "mode"),
    ("pg_reaper_slots_max", "All connection slots", "server"),
    ("pg_reaper_slots_reserved", "Slots that ordinary roles cannot use", "server"),
    ("pg_reaper_slots_used", "Slots that client sessions use", "server"),
    ("pg_reaper_sessions", _SESSIONS, "server", "state", "application"),
    ("pg_reaper_unreadable_sessions", "Sessions whose state the reaper may not read", "server"),
    ("pg_reaper_oldest_idle_seconds", "Age of the longest idle session", "server"),
    ("pg_reaper_oldest_transaction_seconds", "Age of the oldest open transaction", "server"),
    ("pg_reaper_candidates", "Sessions that a policy would terminate if it had no limits", *_POLICY),
    ("pg_reaper_skipped", _SKIPPED, "server", "reason"),
    ("pg_reaper_audit_table_connected", "1 while the server of the audit table is connected"),
    ("pg_reaper_audit_table_lag_seconds", "Age of the oldest entry that is not in the audit table"),
    ("pg_reaper_audit_table_lag_bytes", "Bytes of the audit log that are not in the audit table"),
    (
        "pg_reaper_audit_table_last_success_timestamp_seconds",
        "The last answer of the audit table; 0 before it",
    ),
)
_COUNTERS: Final[tuple[tuple[str, ...], ...]] = (
    ("pg_reaper_outcomes_total", _OUTCOMES, *_POLICY, "outcome"),
    ("pg_reaper_dry_run_outcomes_total", _AFTER_DRY_RUN, *_POLICY, "outcome"),
    ("pg_reaper_safety_limit_trips_total", "Plans that exceeded the safety limit", *_POLICY),
    ("pg_reaper_refill_guard_pauses_total", "Pools that the refill guard paused", *_POLICY),
    ("pg_reaper_failures_total", "Failures: unreachable, denied, cycle, audit_log", "server", "kind"),
    (
        "pg_reaper_clock_steps_total",
        "Jumps of the server's clock; such a cycle terminates nothing",
        "server",
    ),
    ("pg_reaper_notifications_total", "Messages to webhooks: sent, failed", "hook", "result"),
    ("pg_reaper_notification_lines_dropped_total", "Lines for webhooks that were never sent", "hook"),
    ("pg_reaper_audit_table_entries_total", "Entries that the audit table took"),
    ("pg_reaper_audit_table_failures_total", "Failures: unreachable, denied, file, missed", "kind"),
)
_HISTOGRAMS: Final[tuple[tuple[str, ...], ...]] = (
    ("pg_reaper_cycle_seconds", "Duration of a cycle", "server"),
    ("pg_reaper_lateness_seconds", _LATENESS, "server"),
)

CATALOGUE: Final = tuple(
    Metric(name, kind, tuple(labels), text)
    for kind, rows in zip(MetricKind, (_GAUGES, _COUNTERS, _HISTOGRAMS), strict=True)
    for name, text, *labels in rows
)
