SELECT pg_catalog.current_setting('server_version_num')::int4,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_postmaster_start_time(),
       pg_catalog.pg_backend_pid(),
       session_user::text,
       -- Not is_superuser, which does not change after the login.
       coalesce((SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user), false),
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'),
       pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'),
       (SELECT pg_catalog.concat_ws(' ',
                 CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
                 CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
                 CASE WHEN r.rolreplication THEN 'REPLICATION' END,
                 CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END)
          FROM pg_catalog.pg_roles r WHERE r.rolname = session_user),
       -- Memberships that give more rights than needed, directly, through other roles or by SET ROLE.
       ARRAY(SELECT DISTINCT g.rolname::text
               FROM pg_catalog.pg_auth_members m
               JOIN pg_catalog.pg_roles r ON r.oid = m.member AND r.rolname = session_user
               JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
               JOIN pg_catalog.pg_roles mighty ON pg_catalog.pg_has_role(g.oid, mighty.oid, 'MEMBER')
              WHERE mighty.rolsuper OR mighty.rolcreatedb OR mighty.rolcreaterole
                 OR mighty.rolreplication OR mighty.rolbypassrls
                 OR mighty.rolname = ANY ('{pg_read_all_data, pg_write_all_data, pg_read_server_files,
                        pg_write_server_files, pg_execute_server_program, pg_maintain, pg_checkpoint,
                        pg_create_subscription, rds_superuser, rds_replication, cloudsqlsuperuser,
                        alloydbsuperuser, azure_pg_admin, azure_superuser, neon_superuser}'::name[])
              ORDER BY 1),
       (SELECT r.rolconnlimit FROM pg_catalog.pg_roles r WHERE r.rolname = session_user),
       pg_catalog.current_setting('track_activities') = 'on',
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) s WHERE s.backend_type IS NULL),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_activity(NULL) s WHERE s.state = 'disabled'),
       pg_catalog.current_setting('max_connections')::int4,
       pg_catalog.current_setting('superuser_reserved_connections')::int4,
       coalesce(pg_catalog.current_setting('reserved_connections', true)::int4, 0),
       EXISTS (SELECT FROM pg_catalog.pg_roles r
                WHERE r.rolname = 'pg_use_reserved_connections' AND pg_catalog.pg_has_role(r.oid, 'USAGE')),
       pg_catalog.clock_timestamp()
