# Daemons of an ordinary machine: cron, syslog, log rotation.
set -euo pipefail
rsyslogd
logger --tag noise 'a line for the log'
echo '@reboot date > /tmp/from-cron' | crontab -
crontab -l
echo '@reboot www-data id -un > /tmp/from-cron-d' > /etc/cron.d/noise
cron
until [ -s /tmp/from-cron ] && [ -s /tmp/from-cron-d ]; do sleep 0.1; done
until grep -q 'a line for the log' /var/log/syslog; do sleep 0.1; done
logrotate --force /etc/logrotate.conf
run-parts --regex '^(dpkg|logrotate)$' /etc/cron.daily
crontab -r
kill "$(cat /run/crond.pid)" "$(cat /run/rsyslogd.pid)"
