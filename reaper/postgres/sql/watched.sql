-- The state of sessions that a dry run matched and that the cycle's own snapshot left out. One row for every pid, because
-- every answer needs its time. With a pid the function searches all backends: when there are several pids, one call (with
-- NULL) returns all rows.
SELECT wanted.pid, present.pid, present.backend_start, present.state_change, present.query_start, present.xact_start,
       pg_catalog.statement_timestamp()
  FROM pg_catalog.unnest(%(pids)s::int4[]) AS wanted(pid)
  LEFT JOIN (
    SELECT s.pid, s.backend_start, s.state_change, s.query_start, s.xact_start
      FROM pg_catalog.unnest(CASE WHEN pg_catalog.cardinality(%(pids)s::int4[]) > %(one_by_one)s
                                  THEN ARRAY[NULL::int4]
                                  ELSE %(pids)s::int4[] END) AS one(pid)
     CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(one.pid) s
  ) present ON present.pid = wanted.pid
