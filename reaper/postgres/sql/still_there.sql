-- A row for every pid that was asked for, so that there is always a moment to tell.
SELECT s.pid, s.backend_start, s.state, s.query_start, pg_catalog.clock_timestamp()
  FROM pg_catalog.unnest(%(pids)s::int4[]) AS asked(pid)
  LEFT JOIN LATERAL pg_catalog.pg_stat_get_activity(asked.pid) s ON true
