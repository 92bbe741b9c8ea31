# A PostgreSQL cluster from its creation to its end, as Debian's scripts and an image's entry point do it.
set -euo pipefail
pg_createcluster 15 noise --port 5433 > /dev/null
pg_ctlcluster 15 noise start
as() { runuser -u postgres -- "$@"; }
as createuser -p 5433 --createdb app
as createdb -p 5433 --owner app app
as /usr/lib/postgresql/15/bin/pgbench -p 5433 --initialize --quiet app 2> /dev/null
as /usr/lib/postgresql/15/bin/pgbench -p 5433 --client 4 --jobs 2 --transactions 200 app
as psql -p 5433 --quiet app <<'END'
CREATE EXTENSION pgcrypto;
CREATE INDEX ON pgbench_accounts (abalance);
SET max_parallel_workers_per_gather = 2;
SELECT count(*), avg(abalance) FROM pgbench_accounts;
CREATE TEMP TABLE t AS SELECT generate_series(1, 200000) AS n;
SELECT n FROM t ORDER BY md5(n::text) LIMIT 1;
VACUUM FULL ANALYZE pgbench_tellers;
COPY pgbench_branches TO '/tmp/branches.csv' CSV;
SELECT pg_reload_conf(), pg_switch_wal();
CHECKPOINT;
END
! psql "host=127.0.0.1 port=5433 user=app dbname=app" --no-password --command 'SELECT 1'
as pg_dump -p 5433 app | as psql -p 5433 --quiet --set ON_ERROR_STOP=1 --output /dev/null postgres
pg_ctlcluster 15 noise restart
as psql -p 5433 --command 'SELECT count(*) FROM pgbench_history' app
pg_lsclusters
logrotate --force /etc/logrotate.d/postgresql-common
pg_ctlcluster 15 noise stop

# An image's own way: a folder of its own, made by its entry point.
data=/var/lib/postgresql/data
mkdir -p "$data" /run/postgresql && chown postgres:postgres "$data" && chmod 00700 "$data"
find "$data" \! -user postgres -exec chown postgres '{}' +
as /usr/lib/postgresql/15/bin/initdb --pgdata "$data" --auth trust > /dev/null
as /usr/lib/postgresql/15/bin/pg_ctl --pgdata "$data" --wait --log /tmp/log --options '-p 5434' start
as psql -p 5434 --command 'SELECT version()' postgres
as /usr/lib/postgresql/15/bin/pg_ctl --pgdata "$data" --wait stop
