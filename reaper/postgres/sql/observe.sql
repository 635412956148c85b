-- One look at the server. Query text stays there unless it was asked for; what we need of it is worked out in place.
-- A row without backend_type is one that we may not read: it is counted, and judged by nobody.
SELECT s.pid,
       s.backend_start,
       d.datname,
       r.rolname,
       s.application_name,
       pg_catalog.host(s.client_addr),
       s.backend_type,
       s.usesysid,
       r.rolsuper,
       s.client_port,
       s.state,
       s.state_change,
       s.query_start,
       s.xact_start,
       s.wait_event,
       greatest(pg_catalog.age(s.backend_xid), pg_catalog.age(s.backend_xmin)),
       s.query COLLATE "C" ~* '(^|;|\*/|--[^\n\r]*[\n\r])\s*listen\M',
       s.query COLLATE "C" ~* 'pg_(backup_start|start_backup)\s*\(',
       CASE WHEN %(with_query)s THEN s.query END,
       pg_catalog.statement_timestamp()
  FROM pg_catalog.pg_stat_get_activity(NULL) s
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.usesysid
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.datid
 WHERE s.backend_type IN ('client backend', 'walsender')
    OR s.backend_type IS NULL
