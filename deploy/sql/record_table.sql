-- The audit table: a copy of the audit log, on a server that the reaper does not watch. PostgreSQL 13 to 18.
--
-- Run it once in the database that keeps the copy, as its owner or as a superuser:
--   psql -d audit -f deploy/sql/record_table.sql
-- It can be run again: what exists already is not changed. Then give the role a password (in psql:
-- \password reaper_record) and pass the database to `reaper run --audit-table`.

CREATE SCHEMA IF NOT EXISTS reaper;

CREATE TABLE IF NOT EXISTS reaper.record (
    -- The digest of the line: a line that is sent twice, after a crash or from two hosts, is stored once.
    digest bytea PRIMARY KEY CHECK (digest = sha256(convert_to(line, 'UTF8'))),
    -- The order of arrival; for the lines of one source it is the order of its audit log.
    number bigint GENERATED ALWAYS AS IDENTITY,
    arrived timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Host and path of the audit log.
    source text NOT NULL,
    -- The line as written. The columns below are its fields of the same name, for queries; null if it has none.
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

-- The role may only add lines: it cannot read, change, remove or backdate them. Each reaper that sends its audit
-- log here uses one connection, and a second one during a restart.
ALTER ROLE reaper_record LOGIN;
GRANT USAGE ON SCHEMA reaper TO reaper_record;
REVOKE ALL ON reaper.record FROM reaper_record;
GRANT INSERT (
    digest, source, line, time, event, run, seq, host, server, policy, mode, action, intent, pid, role, database,
    application, client, state, reason, outcome, detail
) ON reaper.record TO reaper_record;
