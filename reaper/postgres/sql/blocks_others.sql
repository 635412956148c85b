SELECT EXISTS (
  SELECT FROM pg_catalog.pg_stat_get_activity(NULL) s
   WHERE s.wait_event_type = 'Lock'
     AND %(pid)s::int4 = ANY (pg_catalog.pg_blocking_pids(s.pid)))
