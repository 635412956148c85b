-- The facts about a server that advice needs, one per row. pg_read_all_stats is enough to read them; a setting that
-- this version does not have is no row.
SELECT 'setting', s.name, s.reset_val, s.source, NULL::int8, NULL::int8, NULL::timestamptz
  FROM pg_catalog.pg_settings s
 WHERE s.name = ANY ('{client_connection_check_interval, idle_in_transaction_session_timeout,
         idle_session_timeout, max_connections, max_prepared_transactions, reserved_connections,
         superuser_reserved_connections, transaction_timeout, work_mem}')
 UNION ALL
-- A value that our own connection sets says nothing about the others: it is left out.
SELECT 'setting', s.name, s.setting, s.source, NULL, NULL, NULL
  FROM pg_catalog.pg_settings s
 WHERE s.name = 'tcp_keepalives_idle' AND s.source <> 'client' AND pg_catalog.inet_client_addr() IS NOT NULL
 UNION ALL
SELECT 'role', r.rolname, NULL, NULL, r.rolconnlimit, r.rolsuper::int4, NULL
  FROM pg_catalog.pg_roles r
 WHERE r.oid IN (SELECT a.usesysid FROM pg_catalog.pg_stat_get_activity(NULL) a)
 UNION ALL
SELECT 'given', r.rolname, d.datname, one.setting, NULL, NULL, NULL
  FROM pg_catalog.pg_db_role_setting g
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.setrole
  LEFT JOIN pg_catalog.pg_database d ON d.oid = g.setdatabase
 CROSS JOIN LATERAL pg_catalog.unnest(g.setconfig) AS one(setting)
 WHERE one.setting LIKE '%%\_timeout=%%'
 UNION ALL
SELECT 'prepared', p.gid, p.database, p.owner, pg_catalog.age(p.transaction), NULL, p.prepared
  FROM pg_catalog.pg_prepared_xacts p
 UNION ALL
SELECT 'slot', l.slot_name, l.slot_type, NULL, greatest(pg_catalog.age(l.xmin), pg_catalog.age(l.catalog_xmin)),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), l.restart_lsn)::int8 END,
       NULL
  FROM pg_catalog.pg_replication_slots l
 WHERE NOT l.active AND NOT l.temporary
 UNION ALL
-- Through JSON, because the column does not exist before 14.
SELECT 'opened', NULL, NULL, NULL, pg_catalog.sum((pg_catalog.to_jsonb(d) ->> 'sessions')::int8)::int8, NULL,
       pg_catalog.clock_timestamp()
  FROM pg_catalog.pg_stat_database d
