//! Secrets of the container, the pod and the cloud, and what passes by on the network.

use super::{Case, Needs, act};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[
            act("plain", "actor read plain /etc/shadow"),
            act("cat", "cat /etc/shadow"),
            act("symlink", "actor read symlink /etc/shadow"),
        ],
        evasions: &[
            act("symlink-directory", "actor read symlink-directory /etc/shadow"),
            act("dot-dot", "actor read dot-dot /etc/shadow"),
            act("many-dots", "actor read many-dots /etc/shadow"),
            act("chdir", "actor read chdir /etc/shadow"),
            act("proc-root", "actor read proc-root /etc/shadow"),
            act("dirfd", "actor read dirfd /etc/shadow"),
            act("openat2", "actor read openat2 /etc/shadow"),
            act("o-path", "actor read o-path /etc/shadow"),
            act("hard-link", "actor read hard-link /etc/shadow"),
            act("chroot", "actor read chroot /etc/shadow"),
            act("uring", "actor read uring /etc/shadow"),
            act("user-namespace", "unshare -r cat /etc/shadow"),
            act("read-write", "actor read read-write /etc/shadow"),
            act("renamed-parent", "actor read renamed-parent /etc/sudoers.d/extra"),
            act("exchange", "actor read exchange /etc/shadow"),
            act("unread-rename", "sh -c 'echo >/etc/gshadow-; actor clear unread-rename /etc/gshadow-'"),
        ],
        near_misses: &[
            act("passwd", "actor read plain /etc/passwd"),
            act("stat", "actor read stat /etc/shadow"),
            act("other-directory", "actor read plain /opt/etc/shadow"),
            act("longer-name", "actor read plain /etc/shadow.txt"),
        ],
        ..Case::new("RF-501")
    },
    Case {
        needs: Needs::Privileged,
        behaviours: &[act("bind", "actor read bind /etc/shadow")],
        evasions: &[
            act("bind-directory", "actor read bind-directory /etc/shadow"),
            act("mount-namespace", "unshare -m cat /etc/shadow"),
            act(
                "inner-cgroup",
                "sh -c 'for h in /sys/fs/cgroup/*; do mkdir -p $h/inner; echo $$ >$h/inner/cgroup.procs; done 2>/dev/null; cat /etc/shadow'",
            ),
        ],
        near_misses: &[act("bind-passwd", "actor read bind /etc/passwd")],
        ..Case::new("RF-501")
    },
    Case {
        behaviours: &[
            act("cat", "cat /var/run/secrets/kubernetes.io/serviceaccount/token"),
            act("shell", "sh -c 'read -r token </var/run/secrets/kubernetes.io/serviceaccount/token'"),
        ],
        evasions: &[
            act("data", "cat /var/run/secrets/kubernetes.io/serviceaccount/..data/token"),
            act("symlink", "sh -c 'ln -sf /run/secrets/kubernetes.io/serviceaccount/token /tmp/t; cat /tmp/t'"),
            act("chdir", "sh -c 'cd /run/secrets/kubernetes.io/serviceaccount; cat token'"),
            act("proc-root", "cat /proc/self/root/var/run/secrets/kubernetes.io/serviceaccount/token"),
        ],
        near_misses: &[
            act("application", "actor read plain /var/run/secrets/kubernetes.io/serviceaccount/token"),
            act("certificate", "cat /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
            act("namespace", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"),
            act("other-token", "cat /opt/token"),
            act("list", "ls /var/run/secrets/kubernetes.io/serviceaccount"),
        ],
        ..Case::new("RF-508")
    },
    Case {
        behaviours: &[
            act("tcp", "actor connect tcp 169.254.169.254:80"),
            act("sendto", "actor connect sendto 169.254.169.254:80"),
            act("udp-connect", "actor connect udp-connect-send 169.254.169.254:80"),
        ],
        evasions: &[
            act("ipv6", "actor connect tcp [fd00:ec2::254]:80"),
            act("ipv6-sendto", "actor connect sendto [fd00:ec2::254]:80"),
            act("mapped", "actor connect sendto [::ffff:169.254.169.254]:80"),
            act("tcp-uring", "actor connect tcp-uring 169.254.169.254:80"),
            act("tcp-fast-open", "actor connect tcp-fast-open 169.254.169.254:80"),
            act("sendto-uring", "actor connect sendto-uring 169.254.169.254:80"),
            act("raw", "actor flood --proto raw --to 169.254.169.254:80 --lasting 20 --pause 5000"),
        ],
        near_misses: &[
            act("neighbour", "actor connect tcp 169.254.169.253:80"),
            act("neighbour-sendto", "actor connect sendto 169.254.169.255:80"),
            act("ipv6-neighbour", "actor connect sendto [fd00:ec2::255]:80"),
            act("gateway", "actor connect tcp {peer}"),
        ],
        ..Case::new("RF-510")
    },
    Case {
        behaviours: &[act("raw", "actor connect packet-raw"), act("datagram", "actor connect packet-datagram")],
        near_misses: &[
            act("icmp", "actor connect icmp"),
            act("udp", "actor connect udp"),
            act("netlink", "actor connect netlink"),
        ],
        ..Case::new("RF-513")
    },
];
