-- One snapshot. Query text stays on the server unless it is wanted; the two facts that we need of it are computed here.
-- A row without backend_type is one that we may not read: it is counted, and no policy matches it.
--
-- The prefilter: a row of pg_stat_get_activity() costs a search through all backends, the pg_stat_get_backend_*()
-- functions cost next to nothing. So these count all sessions and choose those that have reached a cutoff and whose role
-- a policy matches; rows are read of these alone, of our own session, and of walsenders, which no cheap function
-- distinguishes from clients. With a pid the function searches all backends too: when many are due, one call (with NULL)
-- returns all rows, and the condition at the end leaves out the others.
WITH cutoff AS MATERIALIZED (
  SELECT pg_catalog.statement_timestamp() - %(quiet)s::interval AS quiet,
         pg_catalog.statement_timestamp() - %(aborted)s::interval AS aborted,
         pg_catalog.statement_timestamp() - %(transaction)s::interval AS transaction,
         pg_catalog.statement_timestamp() - %(connected)s::interval AS connected
), counted AS MATERIALIZED (
  SELECT pg_catalog.count(*) AS present,
         pg_catalog.count(pg_catalog.pg_stat_get_backend_client_port(b)) AS clients,
         pg_catalog.count(*) - pg_catalog.count(quiet_since) AS unreadable,
         pg_catalog.array_agg(pg_catalog.pg_stat_get_backend_pid(b)) FILTER (WHERE
           (quiet_since <= (SELECT greatest(quiet, aborted) FROM cutoff)
            OR (SELECT transaction FROM cutoff) IS NOT NULL
               AND pg_catalog.pg_stat_get_backend_xact_start(b) <= (SELECT transaction FROM cutoff)
            OR (SELECT connected FROM cutoff) IS NOT NULL
               AND pg_catalog.pg_stat_get_backend_start(b) <= (SELECT connected FROM cutoff))
           AND pg_catalog.pg_stat_get_backend_userid(b) <> ALL (%(unmatched)s::oid[])
         ) AS due
         -- A session that has run no query has no activity_start; one that we may not read has neither.
    FROM (SELECT b, coalesce(pg_catalog.pg_stat_get_backend_activity_start(b),
                             pg_catalog.pg_stat_get_backend_start(b)) AS quiet_since
            FROM (SELECT pg_catalog.pg_stat_get_backend_idset() AS b) present
          OFFSET 0) present
   WHERE NOT %(full)s::bool  -- a full snapshot counts its own rows
), chosen AS MATERIALIZED (
  SELECT clients,
         unreadable,
         CASE WHEN %(full)s::bool OR pg_catalog.cardinality(due) > present * %(one_by_one)s::float8
              THEN ARRAY[NULL::int4]
              ELSE ARRAY(SELECT pg_catalog.unnest(due)
                          UNION SELECT w.pid FROM pg_catalog.pg_stat_get_wal_senders() w
                          UNION SELECT pg_catalog.pg_backend_pid()) END AS pids
    FROM counted
)
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
       last.words LIKE '%%listen%%' AND s.query COLLATE "C" ~* '(^|;|\*/|--[^\n\r]*[\n\r])\s*listen\M',
       last.words LIKE '%%backup%%' AND s.query COLLATE "C" ~* 'pg_(backup_start|start_backup)\s*\(',
       CASE WHEN %(with_query)s::bool THEN s.query END,
       -- These describe the snapshot, so that one row is enough for them.
       CASE WHEN s.pid = pg_catalog.pg_backend_pid() THEN pg_catalog.statement_timestamp() END,
       CASE WHEN s.pid = pg_catalog.pg_backend_pid() THEN chosen.clients END,
       CASE WHEN s.pid = pg_catalog.pg_backend_pid() THEN chosen.unreadable END
  FROM chosen
 CROSS JOIN LATERAL pg_catalog.unnest(chosen.pids) AS one(pid)
 CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(one.pid) s
 -- LIKE before the regular expressions, because it costs a fraction. On bytes, because the query may have the encoding
 -- of another database.
 CROSS JOIN LATERAL (SELECT pg_catalog.textsend(pg_catalog.lower(s.query COLLATE "C")) AS words OFFSET 0) AS last
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.usesysid
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.datid
 WHERE (s.backend_type IN ('client backend', 'walsender') OR s.backend_type IS NULL)
   AND (%(full)s::bool
        OR s.pid = pg_catalog.pg_backend_pid()
        OR s.backend_type = 'walsender'
        OR (least(s.state_change, s.query_start) <= (SELECT quiet FROM cutoff)
            OR s.state = 'idle in transaction (aborted)' AND s.state_change <= (SELECT aborted FROM cutoff)
            OR s.xact_start <= (SELECT transaction FROM cutoff)
            OR s.backend_start <= (SELECT connected FROM cutoff))
           AND s.usesysid <> ALL (%(unmatched)s::oid[]))
