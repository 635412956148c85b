-- By way of JSON, for before 14 the server did not count them.
SELECT pg_catalog.clock_timestamp(),
       pg_catalog.pg_postmaster_start_time(),
       pg_catalog.count(*)::int4,
       pg_catalog.sum((pg_catalog.to_jsonb(d) ->> 'sessions_killed')::int8)::int8,
       pg_catalog.max(d.stats_reset)
  FROM pg_catalog.pg_stat_database d
