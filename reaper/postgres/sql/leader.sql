-- Advisory locks are a database's own: only replicas that connect to the same one meet here.
SELECT l.pid, r.rolname, s.application_name
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_stat_get_activity(NULL) s ON s.pid = l.pid
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.usesysid
 WHERE l.locktype = 'advisory'
   AND l.granted
   AND l.classid = %(space)s::int8::oid
   AND l.objid = %(key)s::int8::oid
   AND l.objsubid = 2
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
