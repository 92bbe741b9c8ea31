//! What was not in the image.

use super::{Case, act};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[
            act("create", "actor drop create /usr/bin/actor /tmp/drop-a --run"),
            act("rename", "actor drop rename /usr/bin/actor /opt/drop-b --run"),
            act("rewrite", "actor drop rewrite /usr/bin/actor /usr/bin/tool-rewritten --run"),
        ],
        evasions: &[
            act("symlink", "actor drop symlink /usr/bin/actor /opt/drop-c --run"),
            act("over-image", "actor drop rename /usr/bin/actor /usr/bin/tool-replaced --run"),
            act("descriptor", "sh -c 'cp /usr/bin/actor /tmp/drop-d; exec actor exec descriptor /tmp/drop-d nothing'"),
            act("proc-fd", "sh -c 'cp /usr/bin/actor /tmp/drop-e; exec actor exec proc-fd /tmp/drop-e nothing'"),
            act("script", "sh -c 'printf \"#!/bin/sh\\n\" >/opt/drop-h; chmod 755 /opt/drop-h; /opt/drop-h'"),
            act(
                "script-as-libc",
                "sh -c 'printf \"#!/bin/sh\\n\" >/opt/libc.so.6; chmod 755 /opt/libc.so.6; sh /opt/libc.so.6'",
            ),
            act("tmpfs", "actor drop create /usr/bin/actor /dev/shm/drop-i --run"),
            act(
                "package-manager-name",
                "sh -c 'ln /usr/bin/actor /tmp/dpkg && /tmp/dpkg drop create /usr/bin/actor /tmp/drop-j --run'",
            ),
            act(
                "runc-name",
                "sh -c 'cp /usr/bin/actor /tmp/drop-f; exec actor exec plain --arg0 runc /tmp/drop-f nothing'",
            ),
        ],
        near_misses: &[
            act("of-image", "actor exec plain /usr/bin/tool-actor nothing"),
            act("of-image-chmod", "sh -c 'actor mode chmod 711 /usr/bin/tool-chmod && /usr/bin/tool-chmod nothing'"),
            act("of-image-touch", "sh -c 'actor mode touch 0 /usr/bin/tool-touch && /usr/bin/tool-touch nothing'"),
            act("not-run", "actor drop create /usr/bin/actor /tmp/drop-g"),
            act("package-manager", "/usr/bin/dpkg drop create /usr/bin/actor /tmp/drop-k --run"),
        ],
        ..Case::new("RF-901")
    },
    Case {
        behaviours: &[
            act("chmod", "sh -c 'echo >/tmp/mode-a; actor mode chmod 755 /tmp/mode-a'"),
            act("fchmod", "sh -c 'echo >/tmp/mode-b; actor mode fchmod 711 /tmp/mode-b'"),
            act("fchmodat", "sh -c 'echo >/tmp/mode-c; actor mode fchmodat 700 /tmp/mode-c'"),
        ],
        evasions: &[
            act("applet", "sh -c 'echo >/tmp/mode-d; chmod +x /tmp/mode-d'"),
            act("proc-fd", "sh -c 'echo >/tmp/mode-h; actor mode proc-fd 755 /tmp/mode-h'"),
            act("unread", "sh -c 'echo >/tmp/mode-j; actor mode unread 755 /tmp/mode-j'"),
        ],
        near_misses: &[
            act("no-execute", "sh -c 'echo >/tmp/mode-e; actor mode chmod 644 /tmp/mode-e'"),
            act("taken-away", "actor mode chmod 644 /usr/bin/tool-mode"),
            act("directory", "sh -c 'mkdir -p /tmp/mode-f; actor mode fchmod 755 /tmp/mode-f'"),
            act("directory-proc-fd", "sh -c 'mkdir -p /tmp/mode-i; actor mode proc-fd 755 /tmp/mode-i'"),
            act("data-directory", "sh -c 'mkdir -p /var/lib/mode-g; actor mode chmod 755 /var/lib/mode-g'"),
        ],
        ..Case::new("RF-902")
    },
    Case {
        behaviours: &[
            act("create", "actor write create-new --mode 755 /tmp/created-a"),
            act("dirfd", "actor write dirfd --mode 711 /tmp/created-b"),
        ],
        evasions: &[
            act("openat2", "actor write openat2 --mode 700 /tmp/created-c"),
            act("chdir", "actor write chdir --mode 755 /tmp/created-d"),
            act("uring", "actor write uring --mode 755 /tmp/created-e"),
            act("as-git-sample", "actor write create-new --mode 755 /tmp/pre-commit.sample"),
        ],
        near_misses: &[
            act("no-execute", "actor write create-new --mode 644 /tmp/created-f"),
            act("directory", "actor write directory /tmp/created-g"),
            act("existing", "actor write open-only /opt/script.sh"),
        ],
        ..Case::new("RF-903")
    },
    Case {
        behaviours: &[
            act("new", "sh -c 'cp /lib/libdemo.so.1 /opt/library-a.so; actor map exec /opt/library-a.so'"),
            act("tmpfs", "sh -c 'cp /lib/libdemo.so.1 /dev/shm/library.so; actor map exec /dev/shm/library.so'"),
            act("memfd", "actor map memfd /lib/libdemo.so.1"),
        ],
        evasions: &[
            act(
                "symlink",
                "sh -c 'cp /lib/libdemo.so.1 /opt/library-b.so; ln -s /opt/library-b.so /tmp/l; actor map exec /tmp/l'",
            ),
            act("rewritten", "sh -c 'echo more >>/usr/lib/libold.so; actor map exec /usr/lib/libold.so'"),
            act("shared", "sh -c 'cp /lib/libdemo.so.1 /opt/library-c.so; actor map shared /opt/library-c.so'"),
            act("unlinked", "actor map unlinked /lib/libdemo.so.1"),
            act(
                "package-manager",
                "sh -c 'cp /lib/libdemo.so.1 /opt/library-f.so; /usr/bin/dpkg map exec /opt/library-f.so'",
            ),
        ],
        near_misses: &[
            act("of-image", "actor map exec /usr/bin/tool-actor"),
            act("read", "sh -c 'cp /lib/libdemo.so.1 /opt/library-d.so; actor map read /opt/library-d.so'"),
            act("memfd-read", "actor map memfd-read /lib/libdemo.so.1"),
            act("itself", "sh -c 'cp /usr/bin/actor /opt/library-e; /opt/library-e map exec /opt/library-e'"),
        ],
        ..Case::new("RF-905")
    },
    Case {
        behaviours: &[
            act("open", "actor write open-only /usr/bin/tool-open"),
            act("append", "actor write append /usr/bin/tool-append"),
        ],
        evasions: &[
            act("dirfd", "actor write dirfd /usr/bin/tool-dirfd"),
            act("uring", "actor write uring /usr/bin/tool-uring"),
            act("read-write", "actor read read-write /usr/bin/tool-both"),
            act("outside-of-path", "actor write open-only /opt/program"),
        ],
        near_misses: &[
            act("read", "actor read plain /usr/bin/tool"),
            act("data", "actor write append /usr/share/data.txt"),
            act("own-program", "sh -c 'cp /usr/bin/tool /tmp/own; actor write append /tmp/own'"),
        ],
        ..Case::new("RF-906")
    },
];
