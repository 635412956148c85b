-- The shop of the demo: a role for each application, and one for the reaper with the least rights that it needs.
CREATE ROLE reaper LOGIN CONNECTION LIMIT 3;
GRANT pg_read_all_stats, pg_signal_backend TO reaper;

CREATE ROLE app_checkout LOGIN;
CREATE ROLE app_billing LOGIN;
CREATE ROLE app_scheduler LOGIN;
CREATE ROLE app_notifier LOGIN;
CREATE ROLE app_backup LOGIN;
CREATE ROLE app_shop LOGIN;
CREATE ROLE bi_reports LOGIN;
CREATE ROLE anna LOGIN;

CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, paid boolean NOT NULL DEFAULT false);
GRANT SELECT, INSERT, UPDATE ON orders TO PUBLIC;
INSERT INTO orders (paid) SELECT true FROM generate_series(1, 100);

GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO app_backup;
