-- The state of the sessions of these pids; no row for a pid without a session.
SELECT s.pid, s.backend_start, s.state, s.query_start
  FROM pg_catalog.unnest(%(pids)s::int4[]) AS wanted(pid)
 CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(wanted.pid) s
