SELECT pg_catalog.pg_try_advisory_lock(%(space)s::int4, %(key)s::int4), pg_catalog.statement_timestamp()
