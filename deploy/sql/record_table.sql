-- A table that takes a copy of the record, on a server that the reaper does not watch. PostgreSQL 13 to 18.
--
-- Run it once in the database that keeps the copy, as its owner or as a superuser:
--   psql -d audit -f deploy/sql/record_table.sql
-- and again whenever you like: it changes nothing that is already so. Then give the role a password (in psql:
-- \password reaper_record) and name the database to `reaper run --audit-table`.

CREATE SCHEMA IF NOT EXISTS reaper;

CREATE TABLE IF NOT EXISTS reaper.record (
    -- The digest of the line: whoever sends a line twice, after a crash or from two hosts, leaves it here once.
    digest bytea PRIMARY KEY CHECK (digest = sha256(convert_to(line, 'UTF8'))),
    -- In the order in which they came, which for the lines of one source is the order of its record.
    number bigint GENERATED ALWAYS AS IDENTITY,
    arrived timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Host and path of the record that it comes from.
    source text NOT NULL,
    -- As it stands there. The columns below are its fields of the same name, for queries; null where it has none.
    line text NOT NULL,
    time timestamptz,
    event text,
    run text,
    seq bigint,
    host text,
    server text,
    policy text,
    mode text,
    action text,
    intent text,
    pid integer,
    role text,
    database text,
    application text,
    client text,
    state text,
    reason text,
    outcome text,
    detail text
);
CREATE INDEX IF NOT EXISTS record_time ON reaper.record (time);
CREATE INDEX IF NOT EXISTS record_source ON reaper.record (source, number);

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'reaper_record') THEN
        CREATE ROLE reaper_record;
    END IF;
END
$$;

-- It adds lines, and that is all: it cannot read them, change them, remove them, or date them back. One connection
-- for each reaper that ships its record here, and one more while it restarts.
ALTER ROLE reaper_record LOGIN;
GRANT USAGE ON SCHEMA reaper TO reaper_record;
REVOKE ALL ON reaper.record FROM reaper_record;
GRANT INSERT (
    digest, source, line, time, event, run, seq, host, server, policy, mode, action, intent, pid, role, database,
    application, client, state, reason, outcome, detail
) ON reaper.record TO reaper_record;
