SELECT EXISTS (
  SELECT FROM pg_catalog.pg_locks
   WHERE locktype = 'advisory'
     AND granted
     AND pid = %(pid)s::int4)
