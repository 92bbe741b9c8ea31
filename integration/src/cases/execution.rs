//! Programs started in ways that only intruders use, and streams that lead elsewhere.

use super::{Case, act, on_terminal};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[on_terminal("sh", "sh -c true"), on_terminal("ash", "/bin/ash -c true")],
        near_misses: &[
            act("no-terminal", "sh -c true"),
            on_terminal("no-shell", "cat /etc/hostname"),
            on_terminal("named-like-a-shell", "ls /bin/sh"),
        ],
        ..Case::new("RF-101")
    },
    Case {
        behaviours: &[
            act("dup2", "actor stdio dup2 tcp --to {peer}"),
            act("dup3", "actor stdio dup3 tcp --to {peer} --stream 2"),
            act("fcntl", "actor stdio fcntl tcp --to {peer}"),
        ],
        evasions: &[
            act("dup", "actor stdio dup tcp --to {peer}"),
            act("ipv6", "actor stdio dup2 tcp --to {peer6}"),
            act("udp", "actor stdio dup2 udp --to {peer}"),
            act("inherited", "actor stdio inherited tcp --to {peer}"),
        ],
        near_misses: &[
            act("loopback", "actor stdio dup2 loopback"),
            act("file", "actor stdio dup2 file"),
            act("unix", "actor stdio dup2 unix-pair"),
            act("not-connected", "actor stdio dup2 udp-unconnected --to {peer}"),
            act("elsewhere", "actor stdio elsewhere tcp --to {peer}"),
        ],
        ..Case::new("RF-105")
    },
    Case {
        behaviours: &[act("nc", "timeout 3 nc {gateway4} {port} -e /bin/true")],
        evasions: &[
            act("by-path", "/usr/bin/nc {gateway4} {port} -e /bin/true"),
            act("from-shell", "sh -c 'nc {gateway4} {port} -e /bin/true; true'"),
            act("padded-name", "actor exec plain --arg0 /{longer}/nc /bin/busybox {gateway4} {port} -e /bin/true"),
        ],
        near_misses: &[
            act("no-program", "nc -w 1 {gateway4} {port}"),
            act("echo", "echo -e nc"),
            act("grep", "sh -c 'echo nc -e | grep -e nc'"),
        ],
        ..Case::new("RF-107")
    },
    Case {
        behaviours: &[
            act("binary", "actor drop create /usr/bin/actor /dev/shm/binary --run"),
            act(
                "script",
                r##"sh -c 'printf "#!/bin/sh\nexit 0\n" >/dev/shm/script; chmod 755 /dev/shm/script; /dev/shm/script'"##,
            ),
            act("shell-argument", "sh -c 'echo exit 0 >/dev/shm/text; chmod 700 /dev/shm/text; sh /dev/shm/text'"),
        ],
        evasions: &[
            act(
                "relative",
                "sh -c 'cp /usr/bin/actor /dev/shm/relative; exec actor exec relative /dev/shm/relative nothing'",
            ),
            act(
                "symlink",
                "sh -c 'cp /usr/bin/actor /dev/shm/linked; ln -s /dev/shm/linked /tmp/shm-link; /tmp/shm-link nothing'",
            ),
            act(
                "descriptor",
                "sh -c 'cp /usr/bin/actor /dev/shm/opened; exec actor exec descriptor /dev/shm/opened nothing'",
            ),
        ],
        near_misses: &[
            act("read", "sh -c 'echo text >/dev/shm/data; cat /dev/shm/data'"),
            act("list", "ls /dev/shm"),
            act("other-shm", "/opt/dev/shm/program nothing"),
        ],
        ..Case::new("RF-108")
    },
    Case {
        behaviours: &[
            act("memfd", "actor exec memfd /usr/bin/actor nothing"),
            act("memfd-proc-fd", "actor exec memfd-proc-fd /usr/bin/actor nothing"),
        ],
        evasions: &[
            act("runc-name", "actor exec memfd /usr/bin/actor --arg0 runc nothing"),
            act("init-name", "actor exec memfd-proc-fd /usr/bin/actor --arg0 init nothing"),
            act("unlinked", "actor exec unlinked /usr/bin/actor nothing"),
            act("tmpfile", "actor exec tmpfile /usr/bin/actor nothing"),
        ],
        near_misses: &[
            act("descriptor", "actor exec descriptor /usr/bin/actor nothing"),
            act("plain", "actor exec plain /usr/bin/actor nothing"),
            act("relative", "actor exec relative /usr/bin/actor nothing"),
        ],
        ..Case::new("RF-115")
    },
    Case {
        behaviours: &[
            act("read", "actor read uring /etc/hostname"),
            act("rename", "actor write uring-rename /tmp/renamed-by-ring"),
        ],
        near_misses: &[
            act("read-without", "actor read plain /etc/hostname"),
            act("rename-without", "actor write rename /tmp/renamed"),
        ],
        ..Case::new("RF-117")
    },
];
