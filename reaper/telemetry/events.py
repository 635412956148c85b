"""The names of log events: constants, so that whoever searches for one finds where it is written."""

from typing import Final

STARTED: Final = "reaper.started"
STOPPING: Final = "reaper.stopping"
STOPPED: Final = "reaper.stopped"
BROKEN: Final = "reaper.broken"
POLICY_WARNING: Final = "policy.warning"
POLICY_BRAKED: Final = "policy.braked"

RELOADED: Final = "policy.reloaded"
RELOAD_REFUSED: Final = "policy.refused"
LEADS: Final = "leader.acquired"
LEADS_TWICE: Final = "leader.twice"
STANDS_BY: Final = "leader.standby"
NOTIFY_FAILED: Final = "notify.failed"
SERVES: Final = "http.listening"
SERVES_NOT: Final = "http.unavailable"
HTTP_FAILED: Final = "http.failed"

SERVER_CONNECTED: Final = "server.connected"
SERVER_FINDING: Final = "server.finding"
SERVER_AWAY: Final = "server.away"
SERVER_REFUSED: Final = "server.refused"
SERVER_BLIND: Final = "server.blind"

CYCLE_ACTED: Final = "cycle.acted"
CYCLE_QUIET: Final = "cycle.quiet"
CYCLE_FAILED: Final = "cycle.failed"
CLOCK_STEPPED: Final = "clock.stepped"

RECORD_FAILED: Final = "record.failed"
RECORD_NOT_KEPT: Final = "record.not_kept"
RECORD_REOPENED: Final = "record.reopened"
RECORD_HEAD: Final = "record.head"
RECORD_RECOVERED: Final = "record.recovered"

TABLE_REACHED: Final = "table.reached"
TABLE_AWAY: Final = "table.away"
TABLE_REFUSED: Final = "table.refused"
TABLE_TROUBLE: Final = "table.trouble"
TABLE_MISSED: Final = "table.missed"
TABLE_BEHIND: Final = "table.behind"
