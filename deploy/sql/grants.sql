-- The role of the reaper, with the least rights that it can work with. PostgreSQL 13 to 18.
--
-- Run it once in each cluster, in any database, as a superuser or as the administrator of a managed service:
--   psql -d postgres -f deploy/sql/grants.sql
-- and again whenever you like: it changes nothing that is already so. Then give the role a password (in psql:
-- \password reaper) and let `reaper check` say whether anything is missing.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'reaper') THEN
        CREATE ROLE reaper;
    END IF;
END
$$;

-- It logs in, and what is granted below counts without SET ROLE. Three connections: two replicas, and a person
-- who looks. Were there no limit, a reaper gone mad could itself take the slots that it is there to free.
ALTER ROLE reaper LOGIN INHERIT CONNECTION LIMIT 3;

-- To see the state and age of other roles' sessions; without it they hide, and nobody is ever terminated.
GRANT pg_read_all_stats TO reaper;

-- To end them; superusers' sessions stay out of its reach. For a reaper that only rehearses, leave it out.
GRANT pg_signal_backend TO reaper;

DO $$
BEGIN
    IF pg_catalog.current_setting('server_version_num')::integer >= 160000 THEN
        -- From 16 on it is each grant that inherits or not, whatever the role says.
        EXECUTE 'GRANT pg_read_all_stats, pg_signal_backend TO reaper WITH INHERIT TRUE';
        BEGIN
            -- To get in when the ordinary slots are gone; it takes reserved_connections of at least 2 as well.
            EXECUTE 'GRANT pg_use_reserved_connections TO reaper WITH INHERIT TRUE';
        EXCEPTION
            -- Some managed services keep that role to themselves. The reaper works without it.
            WHEN insufficient_privilege THEN
                RAISE WARNING 'not granted: %', SQLERRM;
        END;
    END IF;
END
$$;
