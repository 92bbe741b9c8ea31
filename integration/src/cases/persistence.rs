//! Files that decide what runs later, and the logs that would tell of it.

use super::{Case, act};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[
            act("write", "actor write create /etc/ld.so.preload"),
            act("rename", "actor write rename /etc/ld.so.preload"),
            act("variable", "env LD_PRELOAD=/tmp/hook.so true"),
        ],
        evasions: &[
            act("append", "actor write append /etc/ld.so.preload"),
            act("chdir", "actor write chdir /etc/ld.so.preload"),
            act("dirfd", "actor write dirfd /etc/ld.so.preload"),
            act("openat2", "actor write openat2 /etc/ld.so.preload"),
            act("symlink-directory", "actor write symlink-directory /etc/ld.so.preload"),
            act("uring", "actor write uring /etc/ld.so.preload"),
            act("link", "sh -c 'rm -f /etc/ld.so.preload; actor write link /etc/ld.so.preload'"),
        ],
        past_tracepoints: &[
            act("uring-rename", "actor write uring-rename /etc/ld.so.preload"),
            act("uring-link", "sh -c 'rm -f /etc/ld.so.preload; actor write uring-link /etc/ld.so.preload'"),
            act("uring-symlink", "sh -c 'rm -f /etc/ld.so.preload; actor write uring-symlink /etc/ld.so.preload'"),
        ],
        near_misses: &[
            act("read", "actor read plain /etc/ld.so.preload"),
            act("other-name", "actor write create /etc/ld.so.preload.bak"),
            act("other-directory", "actor write create /opt/etc/ld.so.preload"),
            act("other-variable", "actor exec plain --env LD_LIBRARY_PATH=/tmp /usr/bin/actor nothing"),
        ],
        ..Case::new("RF-210")
    },
    Case {
        behaviours: &[
            act("loader", "actor write append /lib/ld-musl-x86_64.so.1"),
            act("libc", "actor write rename /lib/x86_64-linux-gnu/libc.so.6"),
        ],
        evasions: &[
            act("dirfd", "actor write dirfd /lib/ld-musl-x86_64.so.1"),
            act("symlink-directory", "actor write symlink-directory /lib/x86_64-linux-gnu/libc.so.6"),
            act("uring", "actor write uring /lib/x86_64-linux-gnu/libc.so.6"),
        ],
        near_misses: &[
            act("read-loader", "actor read plain /lib/ld-musl-x86_64.so.1"),
            act("read-libc", "actor read plain /lib/x86_64-linux-gnu/libc.so.6"),
            act("other-library", "actor write append /lib/libdemo.so.1"),
        ],
        ..Case::new("RF-211")
    },
    Case {
        behaviours: &[
            act("usr-bin", "actor write create-new /usr/bin/new-a"),
            act("bin", "actor write create-new /bin/new-b"),
            act("usr-local-sbin", "actor write rename /usr/local/sbin/new-c"),
        ],
        evasions: &[
            act("chdir", "actor write chdir /usr/bin/new-d"),
            act("dirfd", "actor write dirfd /usr/bin/new-e"),
            act("openat2", "actor write openat2 /bin/new-f"),
            act("symlink-directory", "actor write symlink-directory /usr/bin/new-g"),
            act("uring", "actor write uring /usr/bin/new-h"),
            act("link", "actor write link /usr/bin/new-i"),
            act("renamed-parent", "actor write renamed-parent /usr/bin/sub/new-j"),
            act("deep", "actor write deep /usr/bin"),
            act("long", "actor write long /usr/bin"),
        ],
        past_tracepoints: &[
            act("uring-rename", "actor write uring-rename /usr/bin/new-k"),
            act("uring-link", "actor write uring-link /usr/bin/new-l"),
            act("uring-symlink", "actor write uring-symlink /usr/bin/new-m"),
            act(
                "symlink-directory-rename",
                "sh -c 'ln -s /usr/bin /tmp/way; actor write rename /tmp/way/new-q; s=$?; rm /tmp/way; exit $s'",
            ),
        ],
        near_misses: &[
            act("read", "actor read plain /usr/bin/tool"),
            act("usr-binary", "actor write create-new /usr/binary/new"),
            act("opt-bin", "actor write create-new /opt/bin/new"),
            act("tmp-usr-bin", "sh -c 'mkdir -p /tmp/usr/bin; actor write create-new /tmp/usr/bin/new'"),
        ],
        ..Case::new("RF-212")
    },
    Case {
        behaviours: &[
            act("truncate", "actor clear truncate /var/log/syslog"),
            act("open", "actor clear open /var/log/auth.log"),
            act("unlink", "actor clear unlink /var/log/messages"),
        ],
        evasions: &[
            act("ftruncate", "actor clear ftruncate /var/log/kern.log"),
            act("unlinkat", "actor clear unlinkat /var/log/daemon.log"),
            act(
                "of-apt",
                "sh -c 'mkdir -p /var/log/apt; cd /var/log/apt; touch eipp.log; actor clear unlink eipp.log'",
            ),
            act("shell", "sh -c ': > /var/log/secure'"),
            act("unread-unlink", "sh -c 'echo >/var/log/two.log; actor clear unread-unlink /var/log/two.log'"),
            act("unread-truncate", "sh -c 'echo >/var/log/three.log; actor clear unread-truncate /var/log/three.log'"),
        ],
        past_tracepoints: &[act(
            "uring-unlink",
            "sh -c 'echo >/var/log/one.log; actor clear uring-unlink /var/log/one.log'",
        )],
        near_misses: &[
            act("append", "actor write append /var/log/dpkg.log"),
            act("read", "actor read plain /var/log/dpkg.log"),
            act("elsewhere", "actor clear truncate /opt/data.txt"),
            act(
                "plan-of-apt",
                "sh -c 'mkdir -p /var/log/apt; cd /var/log/apt; touch eipp.log.xz; actor clear unlink eipp.log.xz'",
            ),
            act("elsewhere-unlink", "sh -c 'echo text >/tmp/text; actor clear unlink /tmp/text'"),
        ],
        ..Case::new("RF-401")
    },
];
