# Against a redis-server that is the container's first program; and SQLite.
set -euo pipefail
until redis-cli ping; do sleep 0.1; done
redis-benchmark -q -n 5000 -c 20 -t set,get,lpush,hset
for number in $(seq 1 50); do echo "SET key:$number value"; done | redis-cli --pipe
redis-cli CONFIG SET appendonly yes
redis-cli BGSAVE
redis-cli EVAL 'return redis.call("DBSIZE")' 0
until redis-cli INFO persistence | grep -q rdb_bgsave_in_progress:0; do sleep 0.1; done
redis-cli BGREWRITEAOF

sqlite3 /var/lib/app.db <<'END'
PRAGMA journal_mode = WAL;
CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) INSERT INTO t SELECT i, hex(i) FROM n;
CREATE INDEX by_text ON t (text);
DELETE FROM t WHERE id % 3 = 0;
VACUUM;
PRAGMA integrity_check;
.backup /var/lib/copy.db
END
sqlite3 /var/lib/copy.db 'SELECT count(*) FROM t'
