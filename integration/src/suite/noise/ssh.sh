# Against an sshd that is the container's first program: keys, commands, copies, a tunnel.
set -euo pipefail
cd ~
mkdir -p -m 700 .ssh
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
cp .ssh/id_ed25519.pub .ssh/authorized_keys
printf 'StrictHostKeyChecking accept-new\nLogLevel ERROR\n' > .ssh/config
until ssh localhost true 2> /dev/null; do sleep 0.1; done
[ "$(ssh localhost 'echo $((6 * 7)); hostname > /dev/null')" = 42 ]
head -c 1000000 /dev/urandom > data && scp -q data localhost:copy && cmp data copy
echo 'put data again' | sftp -q -b - localhost > /dev/null && cmp data again
tar -cz data | ssh localhost 'tar -tz' > /dev/null
ssh -N -L 2222:localhost:22 localhost & tunnel=$!
until ssh -p 2222 localhost true 2> /dev/null; do sleep 0.1; done
kill "$tunnel"
eval "$(ssh-agent)" && ssh-add -q && ssh-add -l && kill "$SSH_AGENT_PID"
