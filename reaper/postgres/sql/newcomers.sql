-- Sessions of these roles that connected since then. As in observe.sql a cheap function chooses the pids, and their rows
-- are read one by one or, when there are several, all at once (by NULL).
WITH came AS MATERIALIZED (
  SELECT pg_catalog.array_agg(pg_catalog.pg_stat_get_backend_pid(b)) AS pids
    FROM (SELECT pg_catalog.pg_stat_get_backend_idset() AS b) present
   WHERE pg_catalog.pg_stat_get_backend_start(b) >= %(since)s::timestamptz
)
SELECT s.backend_start, d.datname, r.rolname, s.application_name, pg_catalog.host(s.client_addr)
  FROM came
 CROSS JOIN LATERAL pg_catalog.unnest(CASE WHEN pg_catalog.cardinality(came.pids) > %(one_by_one)s
                                           THEN ARRAY[NULL::int4]
                                           ELSE came.pids END) AS one(pid)
 CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity(one.pid) s
  JOIN pg_catalog.pg_roles r ON r.oid = s.usesysid
  LEFT JOIN pg_catalog.pg_database d ON d.oid = s.datid
 WHERE s.backend_type = 'client backend'
   AND s.backend_start >= %(since)s::timestamptz
   AND r.rolname = ANY (%(roles)s::text[])
 ORDER BY s.backend_start DESC
 LIMIT %(most)s
