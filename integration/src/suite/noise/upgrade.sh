# An upgrade of the system under its own feet: shells, tools and the C library are replaced while they run.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
cd /srv/packages
dpkg -i dash_*.deb libc6_*.deb libc-bin_*.deb
apt-get --quiet=2 --yes --reinstall install ./bash_*.deb ./coreutils_*.deb ./login_*.deb ./passwd_*.deb \
    ./libpam-modules_*.deb ./openssl_*.deb
dpkg --audit

# The new shell is not the image's.
bash -c 'ls > /dev/null'
