-- Through JSON, because the column does not exist before 14.
SELECT pg_catalog.clock_timestamp(),
       pg_catalog.pg_postmaster_start_time(),
       pg_catalog.count(*)::int4,
       pg_catalog.sum((pg_catalog.to_jsonb(d) ->> 'sessions_killed')::int8)::int8,
       pg_catalog.max(d.stats_reset)
  FROM pg_catalog.pg_stat_database d
