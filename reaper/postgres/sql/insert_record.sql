-- No conflict target: with one it would take SELECT on the column that it names.
-- unnest by its bare name: only that takes several arrays.
INSERT INTO reaper.record (
    digest, source, line, time, event, run, seq, host, server, policy, mode, action, intent, pid, role,
    database, application, client, state, reason, outcome, detail
)
SELECT * FROM unnest(
    %(digest)s::bytea[], %(source)s::text[], %(line)s::text[], %(time)s::timestamptz[], %(event)s::text[],
    %(run)s::text[], %(seq)s::bigint[], %(host)s::text[], %(server)s::text[], %(policy)s::text[],
    %(mode)s::text[], %(action)s::text[], %(intent)s::text[], %(pid)s::integer[], %(role)s::text[],
    %(database)s::text[], %(application)s::text[], %(client)s::text[], %(state)s::text[], %(reason)s::text[],
    %(outcome)s::text[], %(detail)s::text[]
)
ON CONFLICT DO NOTHING
