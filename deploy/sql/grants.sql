-- The role of the reaper, with the least rights that it can work with. PostgreSQL 13 to 18.
--
-- Run it once in each cluster, in any database, as a superuser or as the administrator of a managed service:
--   psql -d postgres -f deploy/sql/grants.sql
-- It can be run again: what exists already is not changed. Then give the role a password (in psql:
-- \password reaper) and run `reaper check`, which reports every missing right.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'reaper') THEN
        CREATE ROLE reaper;
    END IF;
END
$$;

-- INHERIT: the grants below apply without SET ROLE. Three connections: two replicas and one command such as
-- `reaper plan`. The limit prevents a defect of the reaper from using up the slots.
ALTER ROLE reaper LOGIN INHERIT CONNECTION LIMIT 3;

-- To read the state and age of other roles' sessions. Without it they are unreadable, and no session is terminated.
GRANT pg_read_all_stats TO reaper;

-- To terminate sessions, except those of superusers. A dry run does not need it.
GRANT pg_signal_backend TO reaper;

DO $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 160000 THEN
        -- Since PostgreSQL 16 each grant has its own INHERIT option, which overrides that of the role.
        EXECUTE 'GRANT pg_read_all_stats, pg_signal_backend TO reaper WITH INHERIT TRUE';
        BEGIN
            -- To connect when the ordinary slots are full; this also needs reserved_connections of at least 2.
            EXECUTE 'GRANT pg_use_reserved_connections TO reaper WITH INHERIT TRUE';
        EXCEPTION
            -- Some managed services do not allow this grant. The reaper works without it.
            WHEN insufficient_privilege THEN
                RAISE WARNING 'not granted: %', SQLERRM;
        END;
    END IF;
END
$$;
