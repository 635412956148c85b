-- Checks one session again and signals it, in one statement. The check reads the function of one pid: the view takes
-- 40 times as long, and the session may wake up between check and signal. The signal stands in the select list over
-- a materialized CTE: anywhere else the planner may call it for sessions that do not match.
-- wait_event is read live from shared memory, the other columns from a copy made a moment earlier: an idle session
-- that has just received a query shows there first.
-- On a frozen server, or after a network stall, this may run long after the reaper has stopped waiting. Then nothing
-- is signalled, and the second column is NULL.
WITH target AS MATERIALIZED (
  SELECT s.pid
    FROM pg_catalog.pg_stat_get_activity(%(pid)s::int4) s
   WHERE s.pid = %(pid)s::int4
     AND s.pid <> pg_catalog.pg_backend_pid()
     AND s.backend_type = %(kind)s::text
     AND s.backend_start = %(backend_start)s::timestamptz
     AND s.usesysid = %(role_oid)s::oid
     AND s.state = %(state)s::text
     AND s.state_change = %(state_change)s::timestamptz
     AND s.query_start IS NOT DISTINCT FROM %(query_start)s::timestamptz
     AND s.xact_start IS NOT DISTINCT FROM %(xact_start)s::timestamptz
     AND (s.state = 'active' OR s.wait_event = 'ClientRead')
     AND (%(sync_aside)s::bool OR s.wait_event IS DISTINCT FROM 'SyncRep')
     AND (%(idle_for)s::interval IS NULL
          OR pg_catalog.statement_timestamp() - s.state_change >= %(idle_for)s::interval)
     AND (%(transaction_for)s::interval IS NULL
          OR pg_catalog.statement_timestamp() - s.xact_start >= %(transaction_for)s::interval)
     AND (%(connected_for)s::interval IS NULL
          OR pg_catalog.statement_timestamp() - s.backend_start >= %(connected_for)s::interval)
     AND (%(running_for)s::interval IS NULL
          OR pg_catalog.statement_timestamp() - s.query_start >= %(running_for)s::interval)
     AND (%(xmin_age)s::int4 IS NULL
          OR greatest(pg_catalog.age(s.backend_xid), pg_catalog.age(s.backend_xmin)) >= %(xmin_age)s::int4)
)
SELECT pg_catalog.statement_timestamp(),
       CASE WHEN pg_catalog.statement_timestamp() <= %(not_after)s::timestamptz
            THEN pg_catalog.{signal}(target.pid)
       END,
       pg_catalog.clock_timestamp()
  FROM target
