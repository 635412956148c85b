-- Those of these pids that have a session, and its start; at least one row, because every answer needs its time.
-- Without pg_stat_get_activity(), of which each row costs a search through all backends.
SELECT present.pid,
       pg_catalog.pg_stat_get_backend_start(present.b),
       pg_catalog.clock_timestamp()
  FROM (SELECT) AS moment
  LEFT JOIN (
       SELECT backends.b, backends.pid
         FROM pg_catalog.unnest(%(pids)s::int4[]) AS wanted(pid)
         JOIN (SELECT b, pg_catalog.pg_stat_get_backend_pid(b) AS pid
                 FROM (SELECT pg_catalog.pg_stat_get_backend_idset() AS b) AS all_of_them
               OFFSET 0) AS backends
        USING (pid)
       ) AS present
    ON true
