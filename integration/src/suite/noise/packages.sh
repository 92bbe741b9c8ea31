# Packages brought in as files and installed while the container runs, as a build does.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
cd /srv/packages
dpkg -i hello_*.deb
hello
apt-get --quiet=2 --yes install ./libyaml*.deb ./python3-yaml*.deb ./sudo*.deb ./libcap2-bin*.deb ./ca-certificates*.deb
python3 -c 'import yaml'
apt-ftparchive packages . > Packages
echo "deb [trusted=yes] file:/srv/packages ./" > /etc/apt/sources.list
apt-get --quiet=2 update
apt-get --quiet=2 --yes purge hello python3-yaml
apt-get --quiet=2 --yes install hello
apt-cache policy hello
dpkg-reconfigure dash
dpkg --verify sudo
dpkg --configure --pending
ldconfig

# What the scripts of packages do, done by an administrator.
adduser --quiet --system --group --home /var/lib/service service
useradd --create-home worker && echo 'worker:secret' | chpasswd && usermod --append --groups adm worker
passwd --status worker > /dev/null && chage --list worker > /dev/null
groupadd extra && gpasswd --add worker extra && groupdel extra
sudo --user=worker --non-interactive id -un
pwck --read-only --quiet || true
update-alternatives --install /usr/bin/greet greet /usr/bin/hello 10
greet
update-alternatives --remove greet /usr/bin/hello
userdel --remove worker 2> /dev/null
