# What start scripts and operators' scripts do all day.
set -euo pipefail
work=$(mktemp -d)
cd "$work"

for number in $(seq 1 200); do echo "line $number of $((number * 7 % 13))"; done > lines
sort -k4 -n lines | uniq -c | sed -n 1,20p > sorted
[ "$(grep -c 'of 0' lines)" = 15 ]
sed -i 's/line/Line/; s/of/from/' lines
awk '{ sum += $4 } END { print sum }' lines | tee sum | tr -d '\n' | wc -c
diff <(head -n 5 lines) <(sed -n 1,5p lines)
cat <<END > template
user=$(id -un) host=$(hostname) day=$(date +%F)
END
. /dev/stdin <<< 'sourced=yes'
[ "$sourced" = yes ]

# Archives of data; directories with modes of their own.
mkdir -p tree/a/b/c && cp -a lines sorted tree/a/b && chmod 750 tree/a && chmod 600 tree/a/b/lines
install -d -m 2775 /var/lib/shared && install -m 640 lines /var/lib/shared/lines
tar -czf tree.tar.gz tree && mkdir out && tar -xzf tree.tar.gz -C out && diff -r tree out/tree
gzip -k lines && xz -k sorted && zcat lines.gz | cmp - lines && xzcat sorted.xz | cmp - sorted
find out -type f -exec sha256sum {} + | sort > sums && sha256sum --check --quiet sums
find . -name '*.gz' -print0 | xargs -0 -n 1 ls -l > /dev/null
dd if=/dev/zero of=zeros bs=64k count=16 status=none && truncate -s 1M zeros && shred -u zeros

# Jobs, signals, other users, other shells.
sleep 600 & sleeper=$!
kill "$sleeper" && ! wait "$sleeper"
timeout 0.2 sleep 600 || [ $? = 124 ]
nohup sh -c 'sleep 0.1; echo done' > nohup.out 2>&1 & wait $!
(exec 9> lock; flock 9; echo locked) > /dev/null
mkfifo pipe && (echo through > pipe &) && [ "$(cat pipe)" = through ]
su -s /bin/sh -c 'id -un' nobody
setpriv --reuid=1 --regid=1 --clear-groups dash -c 'test "$(id -u)" = 1'
runuser -u www-data -- dash -c 'echo "$HOME"'
chroot / /bin/true
getent passwd root daemon > /dev/null && getent hosts localhost
ps -ef > /dev/null && free > /dev/null && df -h / && uptime > /dev/null
env -i PATH="$PATH" bash -c 'printf "%s\n" "$PATH"' > /dev/null
echo 'echo from a file' > script && bash script && sh script
exec 3<> /dev/null 4< lines && read -r first <&4 && [ -n "$first" ] && exec 3>&- 4<&-
cd / && rm -rf "$work"
