-- An advisory lock belongs to one database: only replicas that connect to the same one exclude each other.
SELECT l.pid, r.rolname, s.application_name, d.datname
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_stat_get_activity(NULL) s ON s.pid = l.pid
  JOIN pg_catalog.pg_database d ON d.oid = l.database
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.usesysid
 WHERE l.locktype = 'advisory'
   AND l.granted
   AND l.classid = %(space)s::int8::oid
   AND l.objid = %(key)s::int8::oid
   AND l.objsubid = 2
   AND (d.datname = pg_catalog.current_database()) = %(here)s
 ORDER BY l.pid
