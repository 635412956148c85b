-- Only for sessions that wait for a lock: pg_blocking_pids takes the lock manager's own locks.
SELECT s.pid, pg_catalog.pg_blocking_pids(s.pid)
  FROM pg_catalog.pg_stat_get_activity(NULL) s
 WHERE s.wait_event_type = 'Lock'
