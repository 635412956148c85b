-- A prepared transaction holds locks without a pid.
SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND pid IS NOT NULL
