//! Ways out of the container, and up within it.

use super::{Case, Needs, act};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[
            act("write", "actor write create /tmp/release_agent"),
            act("rename", "actor write rename /opt/release_agent"),
        ],
        evasions: &[
            act("chdir", "actor write chdir /tmp/release_agent"),
            act("dirfd", "actor write dirfd /opt/release_agent"),
            act("symlink-directory", "actor write symlink-directory /opt/release_agent"),
        ],
        near_misses: &[
            act("read", "actor read plain /usr/share/release_agent"),
            act("other-name", "actor write create /tmp/release_agent.txt"),
            act("notify-on-release", "actor write create /tmp/notify_on_release"),
        ],
        ..Case::new("RF-305")
    },
    Case {
        needs: Needs::Privileged,
        // Opened for writing and closed: the machine's own setting stays what it is.
        behaviours: &[act("core-pattern", "actor write open-only /proc/sys/kernel/core_pattern")],
        evasions: &[
            act("read-write", "sh -c ': <> /proc/sys/kernel/core_pattern'"),
            act("dots", "sh -c ': <> /proc/../proc/self/../sys/kernel/core_pattern'"),
        ],
        near_misses: &[
            act("read", "actor read plain /proc/sys/kernel/core_pattern"),
            act("hostname", "actor write open-only /proc/sys/kernel/hostname"),
        ],
        ..Case::new("RF-307")
    },
    Case {
        needs: Needs::Privileged,
        behaviours: &[
            act("vda", "actor namespace mount-device /dev/vda"),
            act("sda1", "actor namespace mount-device /dev/sda1"),
            act("nvme", "actor namespace mount-device /dev/nvme0n1p1"),
        ],
        evasions: &[
            act("mapper", "actor namespace mount-device /dev/mapper/root"),
            act("dots", "actor namespace mount-device /tmp/../dev/./vda"),
            act("own-node", "actor namespace mount-device /tmp/vda"),
            act("unread", "actor namespace unread-mount-device /dev/vda"),
        ],
        near_misses: &[
            act("tmpfs", "actor namespace mount-tmpfs"),
            act("tmpfs-named-shm", "actor namespace mount-tmpfs /dev/shm"),
            act("bind", "actor namespace mount-bind /etc"),
            act("devices", "actor namespace mount-device /devices/disk"),
        ],
        ..Case::new("RF-309")
    },
    Case {
        needs: Needs::Privileged,
        behaviours: &[
            act("invalid", "actor namespace setns-invalid"),
            act("pid-1", "actor namespace setns /proc/1/ns/uts"),
        ],
        evasions: &[act("own", "actor namespace setns /proc/self/ns/ipc")],
        near_misses: &[act("open", "actor namespace open-only /proc/1/ns/net"), act("read-link", "ls -l /proc/1/ns")],
        ..Case::new("RF-312")
    },
    Case {
        needs: Needs::Privileged,
        // Whichever hierarchy tells containers apart here: each is left.
        behaviours: &[
            act(
                "moves-itself",
                "sh -c 'mkdir -p /tmp/v2 /tmp/v1; mount -t cgroup2 none /tmp/v2; mount -t cgroup -o pids none /tmp/v1; \
                 for h in /tmp/v2 /tmp/v1; do echo 0 >$h/cgroup.procs; done 2>/dev/null; umount /tmp/v2 /tmp/v1; true'",
            ),
            // Beside the container's own, so that it is removed with that; one that was killed has left it.
            act(
                "makes-a-cgroup",
                "sh -c 'mkdir -p /tmp/v2 /tmp/v1; mount -t cgroup2 none /tmp/v2; mount -t cgroup -o pids none /tmp/v1; \
                 for own in /tmp/v2$(sed -n s,^0::,,p /proc/self/cgroup) \
                 /tmp/v1$(sed -n s,^[0-9]*:pids:,,p /proc/self/cgroup); do [ -e $own/cgroup.procs ] || continue; \
                 rmdir $own/../beside; mkdir $own/../beside && rmdir $own/../beside || exit; done; \
                 umount /tmp/v2 /tmp/v1; true'",
            ),
        ],
        near_misses: &[act(
            "cgroup-of-its-own",
            "sh -c 'for h in /sys/fs/cgroup/*; do mkdir -p $h/inner; echo $$ >$h/inner/cgroup.procs; done 2>/dev/null; true'",
        )],
        ..Case::new("RF-326")
    },
    Case {
        behaviours: &[
            act("docker", "actor unix connect /var/run/docker.sock"),
            act("containerd", "actor unix connect /run/containerd/containerd.sock"),
        ],
        evasions: &[
            act("relative", "actor unix connect-relative /var/run/docker.sock"),
            act("symlink", "actor unix connect-symlink /var/run/docker.sock"),
        ],
        near_misses: &[
            act("other-name", "actor unix connect /run/app.sock"),
            act("longer-name", "actor unix connect /run/docker.sock.app"),
            act("stat", "actor unix stat /var/run/docker.sock"),
        ],
        ..Case::new("RF-314")
    },
    Case {
        behaviours: &[
            act("chmod", "sh -c 'cp /usr/bin/tool /tmp/set-a; actor mode chmod 4755 /tmp/set-a'"),
            act("fchmod", "sh -c 'cp /usr/bin/tool /tmp/set-b; actor mode fchmod 4755 /tmp/set-b'"),
            act("fchmodat", "sh -c 'cp /usr/bin/tool /tmp/set-c; actor mode fchmodat 4711 /tmp/set-c'"),
        ],
        evasions: &[
            act("setgid", "sh -c 'cp /usr/bin/tool /tmp/set-d; actor mode chmod 2755 /tmp/set-d'"),
            act("of-image", "actor mode fchmod 6755 /usr/bin/tool-setuid"),
        ],
        near_misses: &[
            act("executable", "sh -c 'cp /usr/bin/tool /tmp/set-e; actor mode chmod 755 /tmp/set-e'"),
            act("sticky-directory", "sh -c 'mkdir -p /tmp/set-f; actor mode chmod 1777 /tmp/set-f'"),
            act("setgid-directory", "sh -c 'mkdir -p /tmp/set-h; actor mode fchmod 2775 /tmp/set-h'"),
            act("setgid-without-execute", "sh -c 'echo >/tmp/set-g; actor mode chmod 2644 /tmp/set-g'"),
        ],
        ..Case::new("RF-317")
    },
    Case {
        behaviours: &[act("attach", "actor trace attach"), act("seize", "actor trace seize")],
        past_tracepoints: &[act("memory", "actor trace memory")],
        near_misses: &[act("trace-me", "actor trace trace-me"), act("stop", "actor trace stop")],
        ..Case::new("RF-409")
    },
];
